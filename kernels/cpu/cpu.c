/* The CPU backend's tables: the same stages, with the expert kernels of each instruction level. */
#include "kernels/cpu/cpu.h"

#if defined(SY_CPU_HAVE_X86_64_V3)
#include <cpuid.h>
#endif

static bool always(void) { return true; }

/* Levels by the x86-64 psABI. The compilers' __builtin_cpu_supports does not know all their parts. */
#if defined(SY_CPU_HAVE_X86_64_V3)
static bool has_x86_64_v3(void) {
  unsigned eax;
  unsigned ebx;
  unsigned ecx = 0;
  unsigned extended_ecx = 0;
  unsigned edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) ||
      !__get_cpuid(0x80000001u, &eax, &ebx, &extended_ecx, &edx)) {
    return false;
  }
  return (ecx & bit_F16C) != 0 && (ecx & bit_MOVBE) != 0 && (extended_ecx & bit_LZCNT) != 0 &&
         __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma");
}
#endif

#if defined(SY_CPU_HAVE_X86_64_V4)
static bool has_x86_64_v4(void) {
  return has_x86_64_v3() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

#if defined(SY_CPU_HAVE_AVX512)
static bool has_avx512(void) {
  return has_x86_64_v4() && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx512vbmi");
}
#endif

#if defined(SY_CPU_HAVE_AVX512_BF16)
static bool has_avx512_bf16(void) { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif

/* A level's stages: load and pack by one quantiser, experts, and which level's compilation of the
 * sources that all have. */
#define LEVEL(level_name, level_description, available, quantiser, experts_entry, suffix)  \
  {                                                                                        \
    .name = (level_name), .description = (level_description), .is_available = (available), \
    .expert_bytes = sy_cpu_expert_bytes, .load_expert = sy_cpu_load_expert##quantiser,     \
    .check_ids = sy_cpu_check_ids, .route = sy_cpu_route, .pack = sy_cpu_pack##quantiser,  \
    .group = sy_cpu_group, .experts = (experts_entry), .reduce = sy_cpu_reduce_##suffix,   \
    .combine = sy_cpu_combine_##suffix                                                     \
  }

static const struct sy_kernels levels[] = {
#if defined(SY_CPU_HAVE_AVX512_BF16)
    LEVEL("avx512-bf16", "AVX-512 with VNNI, VBMI and BF16", has_avx512_bf16, _avx512,
          sy_cpu_experts_avx512_bf16, x86_64_v4),
#endif
#if defined(SY_CPU_HAVE_AVX512)
    LEVEL("avx512", "AVX-512 with VNNI and VBMI", has_avx512, _avx512, sy_cpu_experts_avx512,
          x86_64_v4),
#endif
#if defined(SY_CPU_HAVE_X86_64_V4)
    LEVEL("x86-64-v4", "specification compiled for AVX-512, w4a4 by AVX2", has_x86_64_v4, ,
          sy_cpu_experts_x86_64_v4, x86_64_v4),
#endif
#if defined(SY_CPU_HAVE_X86_64_V3)
    LEVEL("x86-64-v3", "specification compiled for AVX2 and FMA, w4a4 by AVX2", has_x86_64_v3, ,
          sy_cpu_experts_x86_64_v3, x86_64_v3),
#endif
    LEVEL("generic", "scalar specification, compiled for the baseline", always, ,
          sy_cpu_experts_generic, generic),
};

const struct sy_kernels *sy_kernels_cpu_levels(size_t *count_out) {
  *count_out = sizeof levels / sizeof levels[0];
  return levels;
}

const struct sy_kernels *sy_kernels_cpu(void) {
  const struct sy_kernels *level = levels;
  while (!level->is_available()) {
    ++level; /* the last one always is */
  }
  return level;
}
