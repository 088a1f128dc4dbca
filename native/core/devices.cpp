#include "devices.h"

#include <cstdlib>
#include <cstring>

#include "cpu.h"
#include "error.h"
#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace oplus {
namespace {

struct Library {
  void* handle;
  std::string error;
};

#ifdef _WIN32
constexpr const char* kDriver = "nvcuda.dll";
constexpr const char* kLibrary = "oplus_cuda.dll";
Library open_library(const std::string& path) {
  HMODULE handle = LoadLibraryExA(path.c_str(), nullptr, LOAD_WITH_ALTERED_SEARCH_PATH);
  return {handle, handle ? "" : path + " could not be loaded (error " + std::to_string(GetLastError()) + ")"};
}
void* symbol(const Library& library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library.handle), name));
}
std::string own_folder() {
  HMODULE self;
  char path[4096];
  GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
                     reinterpret_cast<LPCSTR>(&own_folder), &self);
  GetModuleFileNameA(self, path, sizeof path);
  return std::string(path).substr(0, std::string(path).find_last_of("\\/") + 1);
}
#else
constexpr const char* kDriver = "libcuda.so.1";
constexpr const char* kLibrary = "liboplus_cuda.so";
Library open_library(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  return {handle, handle ? "" : dlerror()};
}
void* symbol(const Library& library, const char* name) { return dlsym(library.handle, name); }
std::string own_folder() {
  Dl_info self;
  if (!dladdr(reinterpret_cast<void*>(&own_folder), &self) || !self.dli_fname) return "";
  const std::string path(self.dli_fname);
  return path.substr(0, path.rfind('/') + 1);
}
#endif

// The driver is looked for first: without one the library need not be mapped. OPLUS_CUDA_LIBRARY names another library
// that speaks the same interface (the emulator of test/simt), which needs no driver.
Backend load_cuda() {
  Backend cuda{"cuda", nullptr, 0, ""};
  const char* named = std::getenv("OPLUS_CUDA_LIBRARY");
  if (!named || !*named) {
    const Library driver = open_library(kDriver);
    if (!driver.handle) return cuda.absent = std::string("no NVIDIA driver (") + driver.error + ")", cuda;
  }
  const std::string path = named && *named ? named : own_folder() + kLibrary;
  const Library library = open_library(path);
  if (!library.handle) return cuda.absent = "the CUDA part is not there or does not load (" + library.error + ")", cuda;
  const auto table = reinterpret_cast<oplus_backend_table_function>(symbol(library, "oplus_backend_table"));
  const oplus_backend* backend = table ? table(OPLUS_ABI) : nullptr;
  if (!backend || backend->abi != OPLUS_ABI) return cuda.absent = path + " was built for another version of oplus", cuda;

  for (const oplus_op* const* op = cpu_backend()->ops; *op; ++op)
    for (const oplus_op* const* other = backend->ops; *other; ++other)
      if (!std::strcmp((*op)->name, (*other)->name) && std::strcmp((*op)->signature, (*other)->signature))
        return cuda.absent =
                   path + ": `" + (*op)->name + "` takes (" + (*other)->signature + "), expected (" + (*op)->signature + ")",
               cuda;

  oplus_message message{};
  if (backend->count(&cuda.devices, &message) != OPLUS_OK) return cuda.devices = 0, cuda.absent = message.text, cuda;
  if (cuda.devices == 0) return cuda.absent = "the driver knows no device", cuda;
  cuda.table = backend;
  return cuda;
}

}  // namespace

const std::vector<Backend>& backends() {
  static const std::vector<Backend>* all = new std::vector<Backend>{{"cpu", cpu_backend(), 1, ""}, load_cuda()};
  return *all;
}

DeviceName device_named(const std::string& name) {
  for (const Backend& backend : backends()) {
    const size_t length = std::strlen(backend.name);
    if (name.compare(0, length, backend.name) != 0) continue;
    const bool plain = name.size() == length;
    const bool numbered = name.size() > length + 1 && name.size() <= length + 5 && name[length] == ':' &&
                          name.find_first_not_of("0123456789", length + 1) == std::string::npos;
    if (!plain && !numbered) continue;
    if (!backend.table) throw Error("ERR_DEVICE", "device \"" + name + "\": " + backend.absent);
    const int32_t index = plain ? 0 : std::stoi(name.substr(length + 1));
    if (index >= backend.devices)
      throw Error("ERR_DEVICE",
                  "device \"" + name + "\": there are " + std::to_string(backend.devices) + " of this kind, counted from 0");
    const bool single = !std::strcmp(backend.name, "cpu");
    return {&backend, index, single ? backend.name : backend.name + (":" + std::to_string(index))};
  }
  throw Error("ERR_DEVICE", "device \"" + name + "\" is not known, expected \"cpu\", \"cuda\" or \"cuda:<number>\"");
}

}  // namespace oplus
