#pragma once
#include "harness.h"
inline void products_cases() {}
