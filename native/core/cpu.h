// The CPU as a device: its memory, and its operations in the widest instruction set that this machine has.
#pragma once
#include "backend.h"

namespace oplus {

const oplus_backend* cpu_backend();
const char* cpu_target();  // "base", "avx2" or "avx512"; the environment variable OPLUS_TARGET names a narrower one

}  // namespace oplus
