// A file's bytes as memory, read only: the system reads pages as they are touched, shares them among processes and drops them
// when memory is short. A file must not be cut short while it is mapped: the system ends a process that touches what is gone.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>

namespace oplus {

class Mapping {
 public:
  static std::shared_ptr<const Mapping> open(const std::string& path);  // throws ERR_DEVICE with the system's reason
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  // Whether this is the same file in the same state: a path may meanwhile lead to another one.
  bool same_as(const Mapping& other) const { return identity_ == other.identity_; }
  const char* at(int64_t offset, int64_t bytes) const;  // throws ERR_ARGUMENT unless all of it is in the file

 private:
  // Device, file, size, and when it was last changed in seconds and nanoseconds.
  using Identity = std::array<int64_t, 5>;
  Mapping(std::string path, const char* data, int64_t size, Identity identity)
      : path_(std::move(path)), identity_(identity), data_(data), size_(size) {}
  const std::string path_;
  const Identity identity_;
  const char* const data_;
  const int64_t size_;
};

}  // namespace oplus
