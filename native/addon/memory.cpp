// Buffers: made, written, read back and freed; and waiting for a queue.
#include <algorithm>
#include <cmath>
#include <functional>

#include "door.h"

namespace oplus {
namespace {

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

Napi::Value map(const Napi::CallbackInfo& info) {
  return Napi::Value(
      info.Env(), guarded(info.Env(), [&]() -> napi_value {
        if (info.Length() != 5 || !info[0].IsString() || !info[1].IsString() || !info[2].IsNumber() || !info[3].IsNumber() ||
            !info[4].IsNumber())
          throw Error("ERR_ARGUMENT", "map: expects (device, path, offset, bytes, alignment)");
        Environment& environment = environment_of(info);
        const auto whole = [&](size_t i) {
          const double value = info[i].As<Napi::Number>().DoubleValue();
          if (!(value >= 0) || value != std::trunc(value) || value > 9007199254740991.0)
            throw Error("ERR_ARGUMENT", "map: offset, bytes and alignment are integers from 0, found " + std::to_string(value));
          return static_cast<int64_t>(value);
        };
        BufferRef buffer = environment.map(info[0].As<Napi::String>().Utf8Value(), info[1].As<Napi::String>().Utf8Value(),
                                           whole(2), whole(3), std::max<int64_t>(1, whole(4)));
        int64_t total;
        if (!buffer->file && buffer->queue->on_host()) napi_adjust_external_memory(info.Env(), buffer->bytes, &total);
        return Napi::Number::New(info.Env(), environment.add(std::move(buffer)));
      }));
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
    if (buffer && !buffer->file && buffer->queue->on_host()) napi_adjust_external_memory(env, -buffer->bytes, &total);
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
                       if (buffer->file) throw Error("ERR_ARGUMENT", "write: this memory is a file's and can only be read");
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

}  // namespace

void export_memory(Napi::Env env, Napi::Object exports, Instance& instance) {
  const auto add = [&](const char* name, Napi::Value (*f)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, f, name, &instance));
  };
  const auto add_plain = [&](const char* name, napi_callback f) {
    napi_value function;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, f, &instance, &function);
    exports.Set(name, Napi::Value(env, function));
  };
  add_plain("create", create);
  add_plain("dispose", dispose);
  add_plain("read", read);
  add("map", map);
  add("write", write);
  add("synchronize", synchronize);

  napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "oplus"), 0, 1, nullptr, nullptr, &instance,
                                  settle, &instance.settle);
  napi_unref_threadsafe_function(env, instance.settle);
}

}  // namespace oplus
