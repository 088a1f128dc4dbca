// The door between JavaScript and native code: the only file that includes napi.h, and the only `catch`.
//
// Every operation is exported by one function (`call`) that turns JavaScript values into an operation's arguments by the
// words of its signature, and queues it on the device that its buffers live on. Everything else here is memory.
#include <napi.h>

#include <cmath>
#include <cstring>

#include "core/cpu.h"
#include "core/devices.h"
#include "core/environment.h"
#include "core/error.h"
#include "core/pool.h"

namespace oplus {
namespace {

// ---- errors ------------------------------------------------------------------------------------

struct Instance {
  Environment environment;
  Napi::ObjectReference errors;  // code → class, given by lib/errors.ts
  napi_threadsafe_function settle = nullptr;
  int64_t reads = 0;  // promises that keep the process alive
};

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

// A failure recorded on a buffer is "CODE message".
Napi::Value failure_error(napi_env env, const std::string& failure) {
  const size_t space = failure.find(' ');
  return make_error(env, failure.substr(0, space), failure.substr(space + 1));
}

Environment& environment_of(const Napi::CallbackInfo& info) { return static_cast<Instance*>(info.Data())->environment; }

std::shared_ptr<Queue> queue_of(const Napi::CallbackInfo& info, const char* where) {
  if (info.Length() != 1 || !info[0].IsString()) throw Error("ERR_ARGUMENT", std::string(where) + ": expects (device)");
  return environment_of(info).queue(info[0].As<Napi::String>().Utf8Value());
}

// ---- operations --------------------------------------------------------------------------------

struct Entry {  // one exported operation
  Environment* environment;
  std::vector<const oplus_op*> ops;  // one a backend, in the order of backends(); null where it has none
  std::vector<Argument> arguments;
};

[[noreturn]] void bad_argument(const Entry& entry, size_t index, const char* expected) {
  throw Error("ERR_ARGUMENT",
              std::string(entry.ops[0]->name) + ": argument " + std::to_string(index + 1) + " is not " + expected);
}

napi_value call(napi_env env, napi_callback_info info) {
  napi_value values[Call::kMaxArguments];
  size_t count = Call::kMaxArguments;
  void* data;
  napi_get_cb_info(env, info, &count, values, nullptr, &data);
  const Entry& entry = *static_cast<Entry*>(data);
  return guarded(env, [&]() -> napi_value {
    if (count != entry.arguments.size())
      throw Error("ERR_ARGUMENT", std::string(entry.ops[0]->name) + ": expects " + std::to_string(entry.arguments.size()) +
                                      " arguments, found " + std::to_string(count));
    Call queued;
    queued.count = static_cast<int>(count);
    Queue* queue = nullptr;
    for (size_t i = 0; i < count; ++i) {
      const Argument& argument = entry.arguments[i];
      oplus_value& value = queued.values[i];
      if (argument.kind == Argument::flag) {
        bool flag;
        if (napi_get_value_bool(env, values[i], &flag) != napi_ok) bad_argument(entry, i, "a boolean");
        value.number = flag;
        continue;
      }
      const bool number = napi_get_value_double(env, values[i], &value.number) == napi_ok;
      if (argument.kind == Argument::integer) {
        if (!number || value.number != std::trunc(value.number) || std::fabs(value.number) > 9007199254740991.0)
          bad_argument(entry, i, "an integer");
        continue;
      }
      if (argument.kind == Argument::real) {
        if (!number) bad_argument(entry, i, "a number");
        continue;
      }
      if (!number) {
        napi_valuetype type;
        napi_typeof(env, values[i], &type);
        if (!argument.optional || type != napi_null) bad_argument(entry, i, argument.optional ? "a buffer or null" : "a buffer");
        continue;
      }
      Buffer* buffer = queued.buffers[i] = entry.environment->buffer(value.number).get();
      if (!queue) queue = buffer->queue.get();
      else if (queue != buffer->queue.get())
        throw Error("ERR_DEVICE", std::string(entry.ops[0]->name) + ": argument " + std::to_string(i + 1) + " is on " +
                                      buffer->queue->name + ", expected " + queue->name + " like those before it");
      value.data = buffer->data;
      value.bytes = buffer->bytes;
      queued.read |= static_cast<uint32_t>(argument.read) << i;
      queued.written |= static_cast<uint32_t>(argument.written) << i;
    }
    if (!queue) throw Error("ERR_ARGUMENT", std::string(entry.ops[0]->name) + ": found no buffer to work on");
    queued.op = entry.ops[queue->backend_index];
    if (!queued.op) throw Error("ERR_DEVICE", std::string(entry.ops[0]->name) + ": not available on " + queue->name);
    queue->submit(queued);
    return nullptr;
  });
}

// ---- memory ------------------------------------------------------------------------------------

// What every step of a stream calls (create, dispose, read) is written in plain Node-API: the wrappers ask for each thing
// several times over, and cost as much as the work.

struct Bytes {
  const void* data;
  int64_t size;
};
Bytes bytes_of(napi_env env, napi_value value, const char* where) {
  constexpr int64_t sizes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};  // in the order of napi_typedarray_type
  napi_typedarray_type type;
  size_t length;
  void* data;
  if (napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) != napi_ok || type > napi_biguint64_array)
    throw Error("ERR_ARGUMENT", std::string(where) + ": data is not a typed array");
  return {data, static_cast<int64_t>(length) * sizes[type]};
}

napi_value create(napi_env env, napi_callback_info info) {
  napi_value values[3], handle;
  size_t count = 3, length;
  void* data;
  napi_get_cb_info(env, info, &count, values, nullptr, &data);
  Instance& instance = *static_cast<Instance*>(data);
  return guarded(env, [&]() -> napi_value {
    char device[64];  // a longer name is cut, and is no device's either way
    double bytes;
    if (count != 3 || napi_get_value_string_utf8(env, values[0], device, sizeof device, &length) != napi_ok ||
        napi_get_value_double(env, values[1], &bytes) != napi_ok)
      throw Error("ERR_ARGUMENT", "create: expects (device, bytes, data or null)");
    if (!(bytes >= 0) || bytes != std::trunc(bytes) || bytes > 9007199254740991.0)
      throw Error("ERR_ARGUMENT", "create: bytes is " + std::to_string(bytes) + ", expected an integer from 0");
    const std::shared_ptr<Queue>& queue = instance.environment.queue({device, length});
    Bytes source{nullptr, 0};
    napi_valuetype type;
    napi_typeof(env, values[2], &type);
    if (type != napi_null) {
      source = bytes_of(env, values[2], "create");
      if (source.size != static_cast<int64_t>(bytes))
        throw Error("ERR_ARGUMENT", "create: data holds " + std::to_string(source.size) + " bytes, expected " +
                                        std::to_string(static_cast<int64_t>(bytes)));
    }
    auto buffer = std::make_shared<Buffer>(queue, static_cast<int64_t>(bytes));
    if (source.data) instance.environment.write(buffer, source.data, source.size, true);
    int64_t total;
    if (queue->on_host()) napi_adjust_external_memory(env, buffer->bytes, &total);
    napi_create_double(env, instance.environment.add(std::move(buffer)), &handle);
    return handle;
  });
}

napi_value dispose(napi_env env, napi_callback_info info) {
  napi_value value;
  size_t count = 1;
  void* data;
  napi_get_cb_info(env, info, &count, &value, nullptr, &data);
  return guarded(env, [&]() -> napi_value {
    double handle;
    if (count != 1 || napi_get_value_double(env, value, &handle) != napi_ok)
      throw Error("ERR_ARGUMENT", "dispose: expects (buffer)");
    const BufferRef buffer = static_cast<Instance*>(data)->environment.remove(handle);
    int64_t total;
    if (buffer && buffer->queue->on_host()) napi_adjust_external_memory(env, -buffer->bytes, &total);
    return nullptr;
  });
}

Napi::Value write(const Napi::CallbackInfo& info) {
  return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value {
                       if (info.Length() != 2 || !info[0].IsNumber())
                         throw Error("ERR_ARGUMENT", "write: expects (buffer, data)");
                       Environment& environment = environment_of(info);
                       const BufferRef& buffer = environment.buffer(info[0].As<Napi::Number>().DoubleValue());
                       const Bytes source = bytes_of(info.Env(), info[1], "write");
                       if (source.size > buffer->bytes)
                         throw Error("ERR_ARGUMENT", "write: data holds " + std::to_string(source.size) +
                                                         " bytes, expected at most " + std::to_string(buffer->bytes));
                       environment.write(buffer, source.data, source.size, false);
                       return nullptr;
                     }));
}

// A promise on its way from the queue's thread back to JavaScript's.
struct Settlement {
  napi_deferred deferred;
  Napi::Reference<Napi::Value> value;  // what it resolves to; its memory is written by the queue's thread
  std::string failure;
};

void settle(napi_env env, napi_value, void* context, void* data) {
  std::unique_ptr<Settlement> settlement(static_cast<Settlement*>(data));
  if (!env) return;  // the environment is being torn down
  auto* instance = static_cast<Instance*>(context);
  Napi::HandleScope scope(env);
  if (settlement->failure.empty())
    napi_resolve_deferred(env, settlement->deferred,
                          settlement->value.IsEmpty() ? Napi::Env(env).Undefined() : settlement->value.Value());
  else napi_reject_deferred(env, settlement->deferred, failure_error(env, settlement->failure));
  if (--instance->reads == 0) napi_unref_threadsafe_function(env, instance->settle);
}

// A promise settled after everything queued so far; `work` returns the failure, empty if there was none.
Napi::Value later(Napi::Env env, Instance& instance, Queue& queue, const Napi::Value& value, std::function<std::string()> work) {
  auto* settlement = new Settlement{nullptr, {}, {}};
  napi_value promise;
  napi_create_promise(env, &settlement->deferred, &promise);
  if (!value.IsEmpty()) settlement->value = Napi::Reference<Napi::Value>::New(value, 1);
  if (instance.reads++ == 0) napi_ref_threadsafe_function(env, instance.settle);
  queue.submit([work = std::move(work), settlement, done = instance.settle] {
    settlement->failure = work();
    if (napi_call_threadsafe_function(done, settlement, napi_tsfn_nonblocking) != napi_ok) settlement->deferred = nullptr;
  });
  return Napi::Value(env, promise);
}

std::string download(const BufferRef& buffer, void* to) {
  if (buffer->failure) return *buffer->failure;
  oplus_message message{};
  const int status = buffer->queue->backend->download(buffer->queue->stream(), to, buffer->data, buffer->bytes, &message);
  return status == OPLUS_OK ? "" : "ERR_DEVICE read from " + buffer->queue->name + ": " + message.text;
}

// Small results on an idle queue are copied at once: a streaming step should not pay for two thread switches.
constexpr int64_t kReadAtOnce = 64 << 10;

napi_value read(napi_env env, napi_callback_info info) {
  napi_value value, out;
  size_t count = 1;
  void* data;
  napi_get_cb_info(env, info, &count, &value, nullptr, &data);
  Instance& instance = *static_cast<Instance*>(data);
  return guarded(env, [&]() -> napi_value {
    double handle;
    if (count != 1 || napi_get_value_double(env, value, &handle) != napi_ok)
      throw Error("ERR_ARGUMENT", "read: expects (buffer)");
    const BufferRef& buffer = instance.environment.buffer(handle);
    void* to;
    if (napi_create_arraybuffer(env, static_cast<size_t>(buffer->bytes), &to, &out) != napi_ok) throw Napi::Error::New(env);
    if (buffer->queue->on_host() && buffer->queue->idle() && buffer->bytes <= kReadAtOnce) {
      const std::string failure = download(buffer, to);
      if (!failure.empty()) napi_throw(env, failure_error(env, failure));
      return out;
    }
    return later(env, instance, *buffer->queue, Napi::Value(env, out), [buffer, to] { return download(buffer, to); });
  });
}

Napi::Value synchronize(const Napi::CallbackInfo& info) {
  return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value {
                       const std::shared_ptr<Queue> queue = queue_of(info, "synchronize");
                       return later(info.Env(), *static_cast<Instance*>(info.Data()), *queue, {}, [queue]() -> std::string {
                         oplus_message message{};
                         return queue->backend->synchronize(queue->stream(), &message) == OPLUS_OK
                                    ? ""
                                    : "ERR_DEVICE " + queue->name + ": " + message.text;
                       });
                     }));
}

// ---- facts -------------------------------------------------------------------------------------

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

// ---- the module --------------------------------------------------------------------------------

void export_operations(Napi::Env env, Napi::Object exports, Instance& instance) {
  for (const oplus_op* const* op = cpu_backend()->ops; *op; ++op) {
    auto* entry = instance.environment.keep(new Entry{&instance.environment, {}, arguments_of((*op)->signature)});
    for (const Backend& backend : backends()) entry->ops.push_back(backend.table ? find_op(backend.table, (*op)->name) : nullptr);
    napi_value function;
    napi_create_function(env, (*op)->name, NAPI_AUTO_LENGTH, call, entry, &function);
    Napi::Object(env, function).Set("signature", (*op)->signature);
    exports.Set((*op)->name, Napi::Value(env, function));
  }
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  auto* instance = new Instance;
  env.SetInstanceData(instance);
  export_operations(env, exports, *instance);
  const auto add = [&](const char* name, Napi::Value (*f)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, f, name, instance));
  };
  const auto add_plain = [&](const char* name, napi_callback f) {
    napi_value function;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, f, instance, &function);
    exports.Set(name, Napi::Value(env, function));
  };
  add_plain("create", create);
  add_plain("dispose", dispose);
  add_plain("read", read);
  add("write", write);
  add("synchronize", synchronize);
  add("devices", devices);
  add("memory", memory);
  add("trim", trim);
  add("cpu", cpu);
  add("setThreads", set_thread_count);
  add("errors", set_errors);

  napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "oplus"), 0, 1, nullptr, nullptr, instance,
                                  settle, &instance->settle);
  napi_unref_threadsafe_function(env, instance->settle);
  // Hooks run last in, first out: this one joins the queues' threads before the function that they call is torn down.
  napi_add_env_cleanup_hook(env, [](void* data) { static_cast<Instance*>(data)->environment.close(); }, instance);
  return exports;
}

}  // namespace
}  // namespace oplus

static Napi::Object oplus_initialize(Napi::Env env, Napi::Object exports) { return oplus::initialize(env, exports); }
NODE_API_MODULE(oplus, oplus_initialize)
