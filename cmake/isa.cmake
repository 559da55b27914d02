# The instruction sets that kernels are compiled for, lowest first: name | compile flags. What a CPU must offer for each is
# tested in csrc/cpu/cpuid.cpp under the same names. A kernel file csrc/cpu/isa/<family>.cpp is compiled once per row;
# a file named <family>_<isa>.cpp only for that row. The last row has only the families that use tiles.
set(FASTDL_AMX_FAMILIES matmul conv conv_weight attention)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set(FASTDL_ISA_TABLE
      "baseline|-march=x86-64-v2"
      "avx2|-march=x86-64-v3"
      "avx512|-march=x86-64-v4 -mprefer-vector-width=512"
      "amx|-march=x86-64-v4 -mprefer-vector-width=512 -mavx512bf16 -mamx-tile -mamx-bf16 -mamx-int8")
  if(FASTDL_EMULATE_ISA)  # the two highest in software
    set(emulated "-O1 -fexpensive-optimizations -march=x86-64-v3 -include ${PROJECT_SOURCE_DIR}/csrc/cpu/emu/avx512.h")
    list(TRANSFORM FASTDL_ISA_TABLE REPLACE "^(avx512)\\|.*" "\\1|${emulated}")
    list(TRANSFORM FASTDL_ISA_TABLE REPLACE "^(amx)\\|.*" "\\1|-DFASTDL_EMULATE_AMX ${emulated}")
  endif()
else()
  set(FASTDL_ISA_TABLE "baseline|")
endif()

# Kernel code: IEEE semantics kept (no -ffast-math), fused multiply-add allowed, no errno or trap bookkeeping.
set(FASTDL_KERNEL_FLAGS -O3 -fno-math-errno -fno-trapping-math -ffp-contract=fast -fno-exceptions -fno-rtti
    -fno-asynchronous-unwind-tables -fno-semantic-interposition -fno-lto)
if(FASTDL_SANITIZE)
  list(REMOVE_ITEM FASTDL_KERNEL_FLAGS -O3)  # CMAKE_CXX_FLAGS decide
endif()

# fastdl_add_kernels(target dir): compiles every kernel file for every row and writes kernel_tables.inc, the list of tables.
function(fastdl_add_kernels target dir)
  file(GLOB files CONFIGURE_DEPENDS ${dir}/*.cpp)
  set(tables "")
  set(isa_names "")
  foreach(row IN LISTS FASTDL_ISA_TABLE)
    string(REPLACE "|" ";" row "${row}")
    list(GET row 0 isa)
    list(LENGTH row columns)
    set(flags "")
    if(columns GREATER 1)
      list(GET row 1 flags)
      separate_arguments(flags)
    endif()
    list(APPEND isa_names ${isa})
    set(sources "")
    foreach(file IN LISTS files)
      get_filename_component(family ${file} NAME_WE)
      if(isa STREQUAL "amx")
        if(NOT family IN_LIST FASTDL_AMX_FAMILIES)
          continue()
        endif()
      elseif(family MATCHES "_(amx|avx512|avx2|baseline)$" AND NOT family MATCHES "_${isa}$")
        continue()
      endif()
      list(APPEND sources ${file})
      string(APPEND tables "FD_TABLE(${isa}, ${family})\n")
    endforeach()
    if(sources AND (NOT FASTDL_ISAS OR isa IN_LIST FASTDL_ISAS))
      add_library(kernels_${isa} OBJECT ${sources})
      target_compile_options(kernels_${isa} PRIVATE ${FASTDL_KERNEL_FLAGS} ${flags})
      target_compile_definitions(kernels_${isa} PRIVATE FD_ISA=${isa})
      target_include_directories(kernels_${isa} PRIVATE ${PROJECT_SOURCE_DIR}/csrc)
      set_target_properties(kernels_${isa} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                            INTERPROCEDURAL_OPTIMIZATION OFF)
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:kernels_${isa}>)
    elseif(sources)
      string(REGEX REPLACE "FD_TABLE\\(${isa}, [a-z0-9_]+\\)\n" "" tables "${tables}")
    endif()
  endforeach()
  file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/generated/kernel_tables.inc CONTENT "${tables}")
endfunction()
