// What native code throws. The code decides which class JavaScript sees (lib/errors.ts).
#pragma once
#include <stdexcept>
#include <string>

namespace oplus {

struct Error : std::runtime_error {
  const char* code;  // ERR_ARGUMENT, ERR_SHAPE, ERR_DISPOSED, ERR_DEVICE, ERR_OUT_OF_MEMORY
  Error(const char* code, const std::string& message) : std::runtime_error(message), code(code) {}
};

}  // namespace oplus
