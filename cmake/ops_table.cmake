# oplus_ops_table(<target> <out-file> <files...>)
#
# Every file in native/ops ends with a list of its operations, `<stem>_ops`, in namespace oplus::<target>. This writes a
# C++ file that collects the lists of the files given: oplus::<target>::all_ops(), an array that ends with null.
# The file is only touched when the list of files changes. It includes "core/op.h", so native/ must be an include directory.
function(oplus_ops_table target out_file)
  set(declarations "")
  set(pointers "")
  foreach(file IN LISTS ARGN)
    get_filename_component(stem "${file}" NAME_WE)
    string(APPEND declarations "extern const Ops ${stem}_ops;\n")
    string(APPEND pointers "&${stem}_ops, ")
  endforeach()
  file(CONFIGURE OUTPUT "${out_file}" @ONLY CONTENT [[
// Written by cmake/ops_table.cmake.
#include "core/op.h"

namespace oplus::@target@ {

@declarations@
const oplus_op* const* all_ops() {
  static const oplus_op* const* const table = [] {
    const Ops* const files[] = {@pointers@nullptr};
    int count = 0;
    for (const Ops* const* file = files; *file; ++file) count += (*file)->count;
    const oplus_op** ops = new const oplus_op*[count + 1]{};
    const oplus_op** next = ops;
    for (const Ops* const* file = files; *file; ++file)
      for (int i = 0; i < (*file)->count; ++i) *next++ = (*file)->first + i;
    return ops;
  }();
  return table;
}

}  // namespace oplus::@target@
]])
endfunction()
