// What one JavaScript environment (the main thread, or a worker) holds: its buffers by number, and a queue a device.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime.h"

namespace oplus {

// How one parameter of an operation is read from JavaScript, from the words of its signature.
struct Argument {
  enum Kind { integer, real, flag, buffer } kind;
  bool read, written, optional;
  uintptr_t alignment;  // of a buffer's elements, in bytes
  bool alone;           // of a buffer that holds no floats: places and the like, which are checked and must not change meanwhile
};
std::vector<Argument> arguments_of(const char* signature);

const oplus_op* find_op(const oplus_backend* backend, const char* name);

class Environment {
 public:
  ~Environment() { close(); }

  // Handles are numbers: the slot, and how often the slot was used before, so that an old handle is not mistaken for a new one.
  double add(BufferRef buffer);
  const BufferRef& buffer(double handle) const;  // throws ERR_DISPOSED
  BufferRef remove(double handle);               // null if it is gone already

  const std::shared_ptr<Queue>& queue(std::string_view device);
  // `fresh`: nothing that is queued can be using the buffer.
  void write(const BufferRef& buffer, const void* data, int64_t bytes, bool fresh);
  // A part of a file as a buffer: on the CPU the file's own pages, read when they are used; a copy elsewhere, and where the part
  // does not begin at a multiple of `alignment`.
  BufferRef map(std::string_view device, const std::string& path, int64_t offset, int64_t bytes, int64_t alignment);
  void close();

  // Owned until the environment ends: JavaScript functions point to it.
  template <typename T>
  T* keep(T* owned) {
    kept_.emplace_back(owned, [](void* p) { delete static_cast<T*>(p); });
    return owned;
  }

 private:
  static constexpr uint32_t kSlots = 1u << 24, kUses = 1u << 6;  // a handle stays below 2^30: a small integer in V8
  struct Slot {
    BufferRef buffer;
    uint32_t uses = 0;
  };
  std::vector<Slot> slots_;
  std::vector<uint32_t> unused_;
  std::unordered_map<std::string, std::shared_ptr<Queue>> queues_;
  std::vector<std::weak_ptr<const Mapping>> files_;        // those in use, each shared by all its parts
  std::pair<std::string, std::shared_ptr<Queue>> recent_;  // asked for last: nearly always the next one too
  std::vector<std::unique_ptr<void, void (*)(void*)>> kept_;
  bool closed_ = false;
};

}  // namespace oplus
