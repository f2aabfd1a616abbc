# Installs into a scratch folder, then builds programs against what lies there and nothing else.

set(scratch ${CMAKE_CURRENT_BINARY_DIR}/installed)
set(consumer ${CMAKE_CURRENT_SOURCE_DIR}/install)

add_test(NAME install.into_scratch COMMAND
  ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR} --prefix ${scratch})
add_test(NAME install.found_by_cmake COMMAND
  ${CMAKE_CTEST_COMMAND} --build-and-test ${consumer} ${scratch}/consumer
  --build-generator ${CMAKE_GENERATOR}
  --build-options -DCMAKE_PREFIX_PATH=${scratch} -DCONSUMER_MPI=${SWITCHYARD_MPI}
  -DCONSUMER_NCCL=${SWITCHYARD_CUDA}
  -DCMAKE_C_COMPILER=${CMAKE_C_COMPILER} -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}
  --test-command ${CMAKE_CTEST_COMMAND} --output-on-failure --no-tests=error)
set(installed_tests install.found_by_cmake)
foreach(package IN ITEMS switchyard switchyard_mpi)
  if(package STREQUAL "switchyard" OR SWITCHYARD_MPI)
    add_test(NAME install.found_by_pkg_config.${package} COMMAND
      ${consumer}/pkg_config.sh ${scratch}/${CMAKE_INSTALL_LIBDIR}/pkgconfig ${scratch}
      ${CMAKE_C_COMPILER} ${CMAKE_CXX_COMPILER} ${package})
    list(APPEND installed_tests install.found_by_pkg_config.${package})
  endif()
endforeach()
add_test(NAME install.removed COMMAND ${CMAKE_COMMAND} -E rm -rf ${scratch})

set_tests_properties(install.into_scratch PROPERTIES FIXTURES_SETUP installed)
set_tests_properties(${installed_tests} PROPERTIES FIXTURES_REQUIRED installed)
set_tests_properties(install.removed PROPERTIES FIXTURES_CLEANUP installed)
set_tests_properties(install.into_scratch ${installed_tests} install.removed PROPERTIES
  LABELS unit TIMEOUT 120 RUN_SERIAL ON ENVIRONMENT "${test_environment}")
