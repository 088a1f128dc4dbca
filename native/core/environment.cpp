#include "environment.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "devices.h"
#include "error.h"

namespace oplus {

std::vector<Argument> arguments_of(const char* signature) {
  std::vector<Argument> arguments;
  std::string_view rest(signature);
  while (!rest.empty()) {
    const size_t comma = rest.find(", ");
    const std::string_view words = rest.substr(0, comma);
    const auto starts = [&](std::string_view prefix) { return words.substr(0, prefix.size()) == prefix; };
    const auto ends = [&](std::string_view suffix) {
      return words.size() >= suffix.size() && words.substr(words.size() - suffix.size()) == suffix;
    };
    Argument argument{Argument::buffer,
                      starts("in"),
                      starts("out") || starts("inout"),
                      words.find("? ") != std::string_view::npos,
                      ends(" u8")    ? uintptr_t{1}
                      : ends(" u16") ? uintptr_t{2}
                                     : uintptr_t{4},
                      !ends(" f32")};
    if (words == "int") argument.kind = Argument::integer;
    if (words == "float") argument.kind = Argument::real;
    if (words == "bool") argument.kind = Argument::flag;
    arguments.push_back(argument);
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 2);
  }
  return arguments;
}

const oplus_op* find_op(const oplus_backend* backend, const char* name) {
  for (const oplus_op* const* op = backend->ops; *op; ++op)
    if (!std::strcmp((*op)->name, name)) return *op;
  return nullptr;
}

double Environment::add(BufferRef buffer) {
  if (unused_.empty()) {
    if (slots_.size() == kSlots)
      throw Error("ERR_OUT_OF_MEMORY", "create: 16,777,216 buffers are held already; dispose of tensors, or use scope()");
    slots_.emplace_back();
    unused_.push_back(static_cast<uint32_t>(slots_.size() - 1));
  }
  const uint32_t slot = unused_.back();
  unused_.pop_back();
  slots_[slot].buffer = std::move(buffer);
  return static_cast<double>(slots_[slot].uses % kUses * kSlots + slot);
}

const BufferRef& Environment::buffer(double handle) const {
  const auto number = handle >= 0 && handle < double{kSlots} * kUses ? static_cast<uint32_t>(handle) : kSlots - 1;
  const uint32_t slot = number % kSlots;
  if (slot >= slots_.size() || !slots_[slot].buffer || slots_[slot].uses % kUses != number / kSlots)
    throw Error("ERR_DISPOSED", "this buffer has been disposed of");
  return slots_[slot].buffer;
}

BufferRef Environment::remove(double handle) {
  const auto number = handle >= 0 && handle < double{kSlots} * kUses ? static_cast<uint32_t>(handle) : kSlots - 1;
  const uint32_t slot = number % kSlots;
  if (slot >= slots_.size() || !slots_[slot].buffer || slots_[slot].uses % kUses != number / kSlots) return nullptr;
  BufferRef buffer = std::move(slots_[slot].buffer);
  slots_[slot].buffer.reset();
  ++slots_[slot].uses;
  unused_.push_back(slot);
  return buffer;
}

const std::shared_ptr<Queue>& Environment::queue(std::string_view asked) {
  if (recent_.second && recent_.first == asked) return recent_.second;
  const std::string device(asked);
  if (closed_) throw Error("ERR_DEVICE", device + ": the environment is closing");
  auto found = queues_.find(device);
  if (found != queues_.end()) return (recent_ = *found).second;
  const DeviceName name = device_named(device);
  found = queues_.find(name.full);
  if (found == queues_.end()) {
    int index = 0;
    for (const Backend& backend : backends()) {
      if (&backend == name.backend) break;
      ++index;
    }
    found = queues_.emplace(name.full, std::make_shared<Queue>(name.backend->table, index, name.index, name.full)).first;
  }
  recent_ = {device, found->second};
  queues_[device] = recent_.second;
  return recent_.second;
}

void Environment::write(const BufferRef& buffer, const void* data, int64_t bytes, bool fresh) {
  Queue& queue = *buffer->queue;
  const auto upload = [](const BufferRef& to, const void* from, int64_t size) {
    oplus_message message{};
    const int status = to->queue->backend->upload(to->queue->stream(), to->data, from, size, &message);
    if (status == OPLUS_OK) to->failure.reset();
    else to->failure = std::make_unique<std::string>("ERR_DEVICE write to " + to->queue->name + ": " + message.text);
  };
  if (queue.idle() || (fresh && queue.on_host())) return upload(buffer, data, bytes);
  const auto copy = std::make_shared<std::vector<char>>(static_cast<const char*>(data), static_cast<const char*>(data) + bytes);
  queue.submit([buffer, copy, upload] { upload(buffer, copy->data(), static_cast<int64_t>(copy->size())); });
}

BufferRef Environment::map(std::string_view device, const std::string& path, int64_t offset, int64_t bytes, int64_t alignment) {
  std::shared_ptr<const Mapping> file = Mapping::open(path);
  for (auto at = files_.begin(); at != files_.end();) {
    const std::shared_ptr<const Mapping> known = at->lock();
    if (known && known->same_as(*file)) file = known;
    at = known ? std::next(at) : files_.erase(at);
  }
  if (std::none_of(files_.begin(), files_.end(), [&](const auto& each) { return each.lock() == file; })) files_.push_back(file);
  const std::shared_ptr<Queue>& on = queue(device);
  if (on->on_host() && offset % alignment == 0) return std::make_shared<Buffer>(on, std::move(file), offset, bytes);
  const char* from = file->at(offset, bytes);
  auto buffer = std::make_shared<Buffer>(on, bytes);
  on->submit([buffer, file, from] {
    oplus_message message{};
    const Queue& queue = *buffer->queue;
    if (queue.backend->upload(queue.stream(), buffer->data, from, buffer->bytes, &message) != OPLUS_OK)
      buffer->failure = std::make_unique<std::string>("ERR_DEVICE write to " + queue.name + ": " + message.text);
  });
  return buffer;
}

void Environment::close() {
  closed_ = true;
  for (auto& [name, queue] : queues_) queue->close();
  for (Slot& slot : slots_) slot.buffer.reset();
  recent_ = {};
  queues_.clear();
}

}  // namespace oplus
