#include "mapping.h"

#include <cerrno>
#include <cstring>
#ifdef _WIN32
#include <atomic>
#include <fstream>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "error.h"

namespace oplus {

namespace {
[[noreturn]] void fail(const std::string& path, const char* what) {
  throw Error("ERR_DEVICE", path + ": cannot be " + what + ": " + std::strerror(errno));
}
}  // namespace

#ifdef _WIN32
// No pages to share: the file is read whole.
std::shared_ptr<const Mapping> Mapping::open(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) fail(path, "opened");
  const auto size = static_cast<int64_t>(file.tellg());
  auto data = std::make_unique<char[]>(static_cast<size_t>(size));
  file.seekg(0);
  if (!file.read(data.get(), size)) fail(path, "read");
  static std::atomic<int64_t> opened{0};  // each is taken for another one
  return std::shared_ptr<const Mapping>(new Mapping(path, data.release(), size, {++opened}));
}
Mapping::~Mapping() { delete[] data_; }
#else
std::shared_ptr<const Mapping> Mapping::open(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(path, "opened");
  struct stat facts;
  void* data = nullptr;
  const bool known = fstat(file, &facts) == 0;
  const auto size = known ? static_cast<size_t>(facts.st_size) : 0;
  if (known && size > 0) data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  const int reason = errno;
  ::close(file);  // the mapping keeps the file
  errno = reason;
  if (!known || data == MAP_FAILED) fail(path, "mapped");
#ifdef __APPLE__
  const struct timespec changed = facts.st_mtimespec;
#else
  const struct timespec changed = facts.st_mtim;
#endif
  const Mapping::Identity identity{static_cast<int64_t>(facts.st_dev), static_cast<int64_t>(facts.st_ino), facts.st_size,
                                   changed.tv_sec, changed.tv_nsec};
  return std::shared_ptr<const Mapping>(new Mapping(path, static_cast<const char*>(data), static_cast<int64_t>(size), identity));
}
Mapping::~Mapping() {
  if (data_) munmap(const_cast<char*>(data_), static_cast<size_t>(size_));
}
#endif

const char* Mapping::at(int64_t offset, int64_t bytes) const {
  if (offset < 0 || bytes < 0 || bytes > size_ || offset > size_ - bytes)
    throw Error("ERR_ARGUMENT", path_ + ": bytes " + std::to_string(offset) + " to " + std::to_string(offset) + " + " +
                                    std::to_string(bytes) + " are asked for, the file has " + std::to_string(size_));
  return data_ + offset;
}

}  // namespace oplus
