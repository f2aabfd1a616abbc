# Faults of whole processes, under switchyard-run and under plain mpirun; and several hosts.

if(NOT SWITCHYARD_MPI OR CMAKE_CROSSCOMPILING)
  return()
endif()

add_executable(fault_rank fault_rank.c)
target_sources(fault_rank PRIVATE support/expect.c)
target_link_libraries(fault_rank PRIVATE test_support_mpi switchyard_mpi OpenMP::OpenMP_C m)
list(JOIN mpirun " " fault_mpirun)

# sy_add_fault_test(<name> <case> <argument>...)
function(sy_add_fault_test name)
  math(EXPR timeout "120 * ${patience}")
  add_test(NAME fault.${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/test_fault.sh
    $<TARGET_FILE:switchyard-run> $<TARGET_FILE:fault_rank> ${fault_mpirun} ${ARGN})
  set_tests_properties(fault.${name} PROPERTIES LABELS "fault" TIMEOUT ${timeout}
    ENVIRONMENT "${test_environment};ASAN_OPTIONS=leak_check_at_exit=0") # Open MPI's leaks
endfunction()

# Where a rank is killed, and what the others say.
foreach(point IN ITEMS start load)
  sy_add_fault_test(killed.${point} killed ${point} nobody)
endforeach()
sy_add_fault_test(killed.create killed create "SY_ERR_PEER: ")
sy_add_fault_test(killed.reserve killed reserve "sy_group_reserve: nothing heard in time from rank 1")
foreach(stage IN ITEMS route pack dispatch)
  sy_add_fault_test(killed.${stage} killed ${stage} "dispatch: nothing heard in time from rank 1")
endforeach()
foreach(stage IN ITEMS group experts reduce return)
  sy_add_fault_test(killed.${stage} killed ${stage} "return: nothing heard in time from rank 1")
endforeach()
# After it has sent all that this step needs of it: the next step misses it.
sy_add_fault_test(killed.combine killed combine "dispatch: nothing heard in time from rank 1")
foreach(point IN ITEMS start experts)
  sy_add_fault_test(killed_under_mpirun.${point} killed_under_mpirun ${point})
endforeach()
foreach(case IN ITEMS halted_in_time halted_too_long stopped out_of_memory left mpirun_killed
    keeper_killed not_there full_disk no_folder)
  sy_add_fault_test(${case} ${case})
endforeach()
sy_add_fault_test(interrupted.INT interrupted INT 130)
sy_add_fault_test(interrupted.TERM interrupted TERM 143)
sy_add_fault_test(interrupted.KILL interrupted KILL 137)

# One rank of lm has too little memory for its layers.
if(TARGET lm)
  foreach(case IN ITEMS create load)
    math(EXPR timeout "120 * ${patience}")
    add_test(NAME fault.lm_out_of_memory.${case} COMMAND
      ${CMAKE_CURRENT_SOURCE_DIR}/test_fault_lm.sh $<TARGET_FILE:switchyard-run> $<TARGET_FILE:lm>
      ${PROJECT_SOURCE_DIR}/examples/tiny-moe ${fault_mpirun} ${case})
    set_tests_properties(fault.lm_out_of_memory.${case} PROPERTIES LABELS "fault" TIMEOUT ${timeout}
      SKIP_RETURN_CODE 77 ENVIRONMENT "${test_environment};ASAN_OPTIONS=leak_check_at_exit=0")
  endforeach()
endif()

add_test(NAME fault.random_kills COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/test_fault_kills.sh
  $<TARGET_FILE:switchyard-run> $<TARGET_FILE:fault_rank> 3)
math(EXPR timeout "300 * ${patience}")
set_tests_properties(fault.random_kills PROPERTIES LABELS "fault" TIMEOUT ${timeout}
  ENVIRONMENT "${test_environment};ASAN_OPTIONS=leak_check_at_exit=0")

# Ranks on several hosts, which root makes out of namespaces.
set(hosts_folder ${CMAKE_CURRENT_SOURCE_DIR}/hosts)
foreach(case IN ITEMS hosts_are_apart forward_tests_pass model_gives_the_same_bits
    slurm_allocation_is_used slow_and_lossy_links_change_nothing delay_changes_nothing
    doctor_names_the_slow_host short_cut_is_mended
    long_cut_ends_the_job host_lost remote_rank_killed launcher_killed full_disk_leaves_whole_files)
  math(EXPR timeout "180 * ${patience}")
  add_test(NAME hosts.${case} COMMAND ${hosts_folder}/in_a_box ${hosts_folder}/test_hosts.sh
    ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${PROJECT_SOURCE_DIR}/examples/tiny-moe ${case})
  set_tests_properties(hosts.${case} PROPERTIES LABELS hosts TIMEOUT ${timeout}
    SKIP_RETURN_CODE 77 ENVIRONMENT "ASAN_OPTIONS=leak_check_at_exit=0")
endforeach()
