// The boundary between the addon and a device: one table of C functions and operations.
//
// The CPU's table is linked into the addon. CUDA's comes from a library of its own (liboplus_cuda.so), opened only where
// a driver is, through `oplus_backend_table`. Nothing else crosses, so either side may be built by another compiler and
// Python can drive the library by ctypes. Any change to this file raises OPLUS_ABI.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define OPLUS_ABI 1
#if defined(_WIN32)
#define OPLUS_EXPORT __declspec(dllexport)
#else
#define OPLUS_EXPORT __attribute__((visibility("default")))
#endif

extern "C" {

enum oplus_status { OPLUS_OK = 0, OPLUS_FAILED = 1, OPLUS_OUT_OF_MEMORY = 2, OPLUS_BAD_SHAPE = 3 };

// One argument of an operation: a number, or memory on the device (data is null for an optional buffer left out).
typedef struct oplus_value {
  double number;
  void* data;
  int64_t bytes;
} oplus_value;

typedef struct oplus_message {
  char text[512];
} oplus_message;

// An operation: its C++ signature as text (the same text on every device), and how to run it on a stream.
typedef struct oplus_op {
  const char* name;
  const char* signature;  // "in f32, out f32, int": one word pair a parameter
  int32_t arity;
  int (*run)(void* stream, const oplus_value* values, oplus_message* error);
  double (*cost)(const oplus_value* values);  // multiply-adds or elements touched: decides what may run inline
} oplus_op;

typedef struct oplus_device_info {
  char model[128];
  int64_t memory;      // bytes in all; 0 when unknown
  int32_t capability;  // CUDA: 10 × major + minor; 0 on the CPU
} oplus_device_info;

typedef struct oplus_backend {
  uint32_t abi;
  int (*count)(int32_t* devices, oplus_message* error);
  int (*describe)(int32_t device, oplus_device_info* info, oplus_message* error);
  int (*open)(int32_t device, void** stream, oplus_message* error);
  void (*close)(void* stream);
  int (*allocate)(void* stream, int64_t bytes, void** data, oplus_message* error);
  void (*release)(void* stream, void* data);
  int (*upload)(void* stream, void* to, const void* from, int64_t bytes, oplus_message* error);    // `from` may be reused at once
  int (*download)(void* stream, void* to, const void* from, int64_t bytes, oplus_message* error);  // returns when done
  int (*synchronize)(void* stream, oplus_message* error);
  const oplus_op* const* ops;  // ends with null
} oplus_backend;

// Null when the library was built for another ABI.
typedef const oplus_backend* (*oplus_backend_table_function)(uint32_t abi);
OPLUS_EXPORT const oplus_backend* oplus_backend_table(uint32_t abi);
}
