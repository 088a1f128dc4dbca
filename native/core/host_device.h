// HOST_DEVICE: before a function that runs on the CPU and in CUDA kernels alike. It goes with `inline`, inside
// namespace oplus::OPLUS_TARGET, so that every instruction set keeps a copy of its own.
#pragma once
#if defined(__CUDACC__)
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif
