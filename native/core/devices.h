// Which devices this process has: the CPU, and what the CUDA library finds when it can be opened at all.
#pragma once
#include <string>
#include <vector>

#include "backend.h"

namespace oplus {

struct Backend {
  const char* name;            // "cpu", "cuda"
  const oplus_backend* table;  // null when absent
  int32_t devices = 0;
  std::string absent;  // why there is none
};

// Asked for once a process. Opens no device and prints nothing.
const std::vector<Backend>& backends();

// "cpu", "cuda" (the first), "cuda:1" → backend, index and full name. Throws ERR_DEVICE with the reason.
struct DeviceName {
  const Backend* backend;
  int32_t index;
  std::string full;
};
DeviceName device_named(const std::string& name);

}  // namespace oplus
