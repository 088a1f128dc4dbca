#pragma once
#include "harness.h"
inline void scan_cases() {}
