#pragma once
#include "harness.h"
inline void attend_cases() {}
