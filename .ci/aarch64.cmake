# Debian's cross compiler, the libraries of .ci/aarch64_libraries, and qemu to run what comes out.
cmake_path(SET aarch64_root NORMALIZE ${CMAKE_CURRENT_LIST_DIR}/../build/aarch64-libraries/root)
set(aarch64_libraries ${aarch64_root}/usr/lib/aarch64-linux-gnu)

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_C_FLAGS_INIT "-isystem ${aarch64_root}/usr/include/aarch64-linux-gnu")
set(CMAKE_EXE_LINKER_FLAGS_INIT -Wl,-rpath-link,${aarch64_libraries})
set(CMAKE_CROSSCOMPILING_EMULATOR
  qemu-aarch64;-L;/usr/aarch64-linux-gnu;-E;LD_LIBRARY_PATH=${aarch64_libraries})

set(ENV{PKG_CONFIG_SYSROOT_DIR} ${aarch64_root})
set(ENV{PKG_CONFIG_LIBDIR} ${aarch64_libraries}/pkgconfig)
