// Every operation is exported by one function, `call`: it turns JavaScript values into an operation's arguments by the words of
// its signature, and queues it on the device that its buffers live on.
#include <algorithm>
#include <cmath>

#include "core/cpu.h"
#include "core/devices.h"
#include "door.h"

namespace oplus {
namespace {

struct Entry {  // one exported operation
  Environment* environment;
  std::vector<const oplus_op*> ops;  // one a backend, in the order of backends(); null where it has none
  std::vector<Argument> arguments;
};

[[noreturn]] void bad_argument(const Entry& entry, size_t index, const char* expected) {
  throw Error("ERR_ARGUMENT",
              std::string(entry.ops[0]->name) + ": argument " + std::to_string(index + 1) + " is not " + expected);
}

// Results may share memory with operands, where an operation says so; but not with whole numbers or bytes, which are checked
// before anything is written and looked at again afterwards.
void refuse_shared(const Entry& entry, const Call& call) {
  for (int i = 0; i < call.count; ++i) {
    if (!call.buffers[i] || !entry.arguments[static_cast<size_t>(i)].alone) continue;
    for (int j = 0; j < call.count; ++j)
      if (j != i && call.buffers[j] == call.buffers[i] && ((call.written >> i | call.written >> j) & 1))
        throw Error("ERR_ARGUMENT", std::string(entry.ops[0]->name) + ": arguments " + std::to_string(std::min(i, j) + 1) +
                                        " and " + std::to_string(std::max(i, j) + 1) +
                                        " share memory, expected memory of their own");
  }
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
      if (argument.written && buffer->file)
        throw Error("ERR_ARGUMENT", std::string(entry.ops[0]->name) + ": argument " + std::to_string(i + 1) +
                                        " is written, but its memory is a file's and can only be read");
      if (reinterpret_cast<uintptr_t>(buffer->data) % argument.alignment)
        throw Error("ERR_ARGUMENT", std::string(entry.ops[0]->name) + ": argument " + std::to_string(i + 1) +
                                        " begins between two numbers of its file, expected a multiple of " +
                                        std::to_string(argument.alignment) + " bytes");
      value.data = buffer->data;
      value.bytes = buffer->bytes;
      queued.read |= static_cast<uint32_t>(argument.read) << i;
      queued.written |= static_cast<uint32_t>(argument.written) << i;
    }
    refuse_shared(entry, queued);
    if (!queue) throw Error("ERR_ARGUMENT", std::string(entry.ops[0]->name) + ": found no buffer to work on");
    queued.op = entry.ops[queue->backend_index];
    if (!queued.op) throw Error("ERR_DEVICE", std::string(entry.ops[0]->name) + ": not available on " + queue->name);
    queue->submit(queued);
    return nullptr;
  });
}

}  // namespace

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

}  // namespace oplus
