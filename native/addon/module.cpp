// The module as Node loads it, once for each environment: facts about devices, and everything that the other files export.
#include <cmath>
#include <cstring>

#include "core/cpu.h"
#include "core/devices.h"
#include "core/pool.h"
#include "door.h"

namespace oplus {

Napi::Value make_error(napi_env env, const std::string& code, const std::string& message) {
  auto* instance = static_cast<Instance*>(nullptr);
  napi_get_instance_data(env, reinterpret_cast<void**>(&instance));
  if (instance && !instance->errors.IsEmpty()) {
    const Napi::Value made = instance->errors.Get(code);
    if (made.IsFunction()) return made.As<Napi::Function>().New({Napi::String::New(env, message)});
  }
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error.Value();
}

// A failure recorded on a buffer is "CODE message".
Napi::Value failure_error(napi_env env, const std::string& failure) {
  const size_t space = failure.find(' ');
  return make_error(env, failure.substr(0, space), failure.substr(space + 1));
}

namespace {

Napi::Value devices(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto present = Napi::Array::New(env), absent = Napi::Array::New(env);
  for (const Backend& backend : backends()) {
    if (!backend.table) {
      auto entry = Napi::Object::New(env);
      entry.Set("name", backend.name);
      entry.Set("reason", backend.absent);
      absent.Set(absent.Length(), entry);
      continue;
    }
    for (int32_t i = 0; i < backend.devices; ++i) {
      oplus_device_info facts{};
      oplus_message message{};
      backend.table->describe(i, &facts, &message);
      auto entry = Napi::Object::New(env);
      entry.Set("name", device_named(backend.name +
                                     (backend.devices > 1 || std::strcmp(backend.name, "cpu") ? ":" + std::to_string(i) : ""))
                            .full);
      entry.Set("model", static_cast<const char*>(facts.model));
      entry.Set("memory", static_cast<double>(facts.memory));
      entry.Set("capability", facts.capability);
      present.Set(present.Length(), entry);
    }
  }
  auto out = Napi::Object::New(env);
  out.Set("devices", present);
  out.Set("absent", absent);
  return out;
}

Napi::Value memory(const Napi::CallbackInfo& info) {
  return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value {
                       const Cache::Use use = queue_of(info, "memory")->cache().use();
                       auto out = Napi::Object::New(info.Env());
                       out.Set("bytes", static_cast<double>(use.bytes));
                       out.Set("peakBytes", static_cast<double>(use.peak_bytes));
                       out.Set("buffers", static_cast<double>(use.buffers));
                       out.Set("cachedBytes", static_cast<double>(use.cached_bytes));
                       return out;
                     }));
}

Napi::Value trim(const Napi::CallbackInfo& info) {
  return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value {
                       queue_of(info, "trim")->cache().trim();
                       return nullptr;
                     }));
}

Napi::Value set_thread_count(const Napi::CallbackInfo& info) {
  return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value {
                       const double n = info.Length() == 1 && info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : -1;
                       if (!(n >= 0 && n <= 4096) || n != std::trunc(n))
                         throw Error("ERR_ARGUMENT", "setThreads: expects an integer from 0 to 4096");
                       set_threads(static_cast<int>(n));
                       return nullptr;
                     }));
}

Napi::Value cpu(const Napi::CallbackInfo& info) {
  auto out = Napi::Object::New(info.Env());
  out.Set("target", cpu_target());
  out.Set("threads", threads());
  return out;
}

Napi::Value set_errors(const Napi::CallbackInfo& info) {
  return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value {
                       if (info.Length() != 1 || !info[0].IsObject())
                         throw Error("ERR_ARGUMENT", "errors: expects an object of classes");
                       static_cast<Instance*>(info.Data())->errors = Napi::Persistent(info[0].As<Napi::Object>());
                       return nullptr;
                     }));
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  auto* instance = new Instance;
  env.SetInstanceData(instance);
  export_operations(env, exports, *instance);
  export_memory(env, exports, *instance);
  const auto add = [&](const char* name, Napi::Value (*f)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, f, name, instance));
  };
  add("devices", devices);
  add("memory", memory);
  add("trim", trim);
  add("cpu", cpu);
  add("setThreads", set_thread_count);
  add("errors", set_errors);
  // Hooks run last in, first out: this one joins the queues' threads before the function that they call, which
  // export_memory made, is torn down.
  napi_add_env_cleanup_hook(env, [](void* data) { static_cast<Instance*>(data)->environment.close(); }, instance);
  return exports;
}

}  // namespace
}  // namespace oplus

static Napi::Object oplus_initialize(Napi::Env env, Napi::Object exports) { return oplus::initialize(env, exports); }
NODE_API_MODULE(oplus, oplus_initialize)
