// The door between JavaScript and native code. Only the files of this folder include napi.h, and the only `catch` that turns
// what C++ throws into what JavaScript does is `guarded`.
#pragma once
#include <napi.h>

#include <string>

#include "core/environment.h"
#include "core/error.h"

namespace oplus {

struct Instance {
  Environment environment;
  Napi::ObjectReference errors;  // code → class, given by lib/errors.ts
  napi_threadsafe_function settle = nullptr;
  int64_t reads = 0;  // promises that keep the process alive
};

// An error of the class that lib/errors.ts gave for this code.
Napi::Value make_error(napi_env env, const std::string& code, const std::string& message);

// A failure recorded on a buffer is "CODE message".
Napi::Value failure_error(napi_env env, const std::string& failure);

// Runs f; what it throws is thrown in JavaScript.
template <typename F>
napi_value guarded(napi_env env, F&& f) {
  try {
    return f();
  } catch (const Error& e) {
    napi_throw(env, make_error(env, e.code, e.what()));
  } catch (const Napi::Error& e) {
    e.ThrowAsJavaScriptException();
  } catch (const std::bad_alloc&) {
    napi_throw(env, make_error(env, "ERR_OUT_OF_MEMORY", "the system has no memory left"));
  } catch (const std::exception& e) {
    napi_throw(env, make_error(env, "ERR_DEVICE", e.what()));
  }
  return nullptr;
}

inline Environment& environment_of(const Napi::CallbackInfo& info) { return static_cast<Instance*>(info.Data())->environment; }

inline std::shared_ptr<Queue> queue_of(const Napi::CallbackInfo& info, const char* where) {
  if (info.Length() != 1 || !info[0].IsString()) throw Error("ERR_ARGUMENT", std::string(where) + ": expects (device)");
  return environment_of(info).queue(info[0].As<Napi::String>().Utf8Value());
}

void export_operations(Napi::Env env, Napi::Object exports, Instance& instance);  // operations.cpp
void export_memory(Napi::Env env, Napi::Object exports, Instance& instance);      // memory.cpp

}  // namespace oplus
