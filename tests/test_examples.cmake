# The programs of examples/.

if(NOT SWITCHYARD_EXAMPLES)
  return()
endif()
add_test(NAME embed COMMAND embed)
set_tests_properties(embed PROPERTIES
  LABELS unit TIMEOUT 60 ENVIRONMENT "${test_environment}")

if(NOT TARGET lm)
  return()
endif()

# The language model on the shipped checkpoint: one entry per case of test_lm_*.sh.
set(lm_model ${PROJECT_SOURCE_DIR}/examples/tiny-moe)
list(JOIN mpirun " " lm_mpirun)

# sy_add_lm_test(<name> SCRIPT <what> LABELS <label>... CASE <case> <argument>...)
function(sy_add_lm_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "SCRIPT" "LABELS;CASE")
  set(timeout 300)
  if("slow" IN_LIST arg_LABELS)
    set(timeout 1500)
  endif()
  math(EXPR timeout "${timeout} * ${patience}")
  add_test(NAME lm.${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/test_lm_${arg_SCRIPT}.sh
    $<TARGET_FILE:lm> ${lm_model} ${lm_mpirun} ${arg_CASE})
  set_tests_properties(lm.${name} PROPERTIES
    LABELS "mpi;${arg_LABELS}" TIMEOUT ${timeout} PROCESSORS 8
    ENVIRONMENT "${test_environment};ASAN_OPTIONS=leak_check_at_exit=0") # Open MPI's leaks
endfunction()

# Bits per byte of an independent float32 implementation: mode, its tolerance, 8 windows, all 33.
set(lm_references
  "bf16 0.002 1.53173 1.49002" "w4a16 0.004 1.53387 1.49145" "w4a4 0.004 1.53769 1.49287")
# A debug build takes minutes for what a release build does in seconds.
set(lm_quick)
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  set(lm_quick slow)
endif()
foreach(reference IN LISTS lm_references)
  string(REPLACE " " ";" reference ${reference})
  list(POP_FRONT reference mode tolerance first_8 all_33)
  sy_add_lm_test(score.${mode} SCRIPT score LABELS ${lm_quick}
    CASE worlds_agree ${mode} 8 ${first_8} ${tolerance} 1 2 3 4 8)
  sy_add_lm_test(score.${mode}.per_rank SCRIPT score LABELS ${lm_quick}
    CASE per_rank_is_near ${mode} 8 2 3 4 8)
  sy_add_lm_test(score.${mode}.whole SCRIPT score LABELS slow
    CASE worlds_agree ${mode} 33 ${all_33} ${tolerance} 1 2 3 4 8)
endforeach()
# MXFP4 has no such reference: it must stay near BF16's figure, and agree between worlds to the digit.
foreach(mode IN ITEMS w4a16-mxfp4 w4a4-mxfp4)
  sy_add_lm_test(score.${mode} SCRIPT score LABELS ${lm_quick}
    CASE worlds_agree ${mode} 8 1.53173 0.04 1 3 4)
endforeach()
sy_add_lm_test(score.w4a4.per_rank.whole SCRIPT score LABELS slow
  CASE per_rank_is_near w4a4 33 2 3 4 8)
sy_add_lm_test(score.ways_agree SCRIPT score LABELS ${lm_quick} CASE ways_agree)
sy_add_lm_test(score.table_adds_up SCRIPT score CASE table_adds_up)
sy_add_lm_test(score.progress_suits_its_reader SCRIPT score CASE progress_suits_its_reader)

foreach(case IN ITEMS greedy_is_the_same_on_every_world drawn_is_the_same_on_every_world
    prefill_and_decode_agree fewer_prompts_than_ranks positions_end)
  sy_add_lm_test(generate.${case} SCRIPT generate CASE ${case})
endforeach()
# These two run under the sanitizers as well.
set_property(TEST lm.generate.greedy_is_the_same_on_every_world lm.generate.fewer_prompts_than_ranks
  APPEND PROPERTY LABELS w4)
foreach(case IN ITEMS wrong_flags wrong_values wrong_files wrong_config wrong_tensors
    config_costs_nothing ranks_speak_with_one_voice
    ranks_with_different_options_do_not_hang one_rank_fails stopped_rank_is_named)
  sy_add_lm_test(errors.${case} SCRIPT errors CASE ${case})
endforeach()
