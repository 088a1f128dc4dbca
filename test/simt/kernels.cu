// Every operation of the CUDA library against naive references: on a GPU when built by nvcc, else on the emulator.
//
//   kernels [name]     only cases whose name starts with `name`
#include "cases_attend.h"
#include "cases_cache.h"
#include "cases_decoder.h"
#include "cases_elements.h"
#include "cases_favor.h"
#include "cases_products.h"
#include "cases_scan.h"
#include "cases_stored.h"
#include "cases_train.h"

int main(int argc, char** argv) {
  if (argc > 1) filter = argv[1];
  elements_cases();
  train_cases();
  products_cases();
  scan_cases();
  attend_cases();
  favor_cases();
  decoder_cases();
  stored_cases();
  cache_cases();
  std::printf("%d passed, %d failed\n", passes, failures);
  return failures != 0;
}
