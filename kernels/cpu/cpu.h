/* The CPU backend's stages. Each is the scalar specification of its stage; the expert kernels are
 * compiled once per instruction level from one source (experts.c) and chosen at run time. */
#ifndef SY_KERNELS_CPU_CPU_H
#define SY_KERNELS_CPU_CPU_H

#include "kernels/cpu/quantise.h"
#include "kernels/kernels.h"

/* SY_API: the CUDA backend, another library, checks host tensors by it and repacks what it loads. */
SY_API sy_status sy_cpu_check_ids(const struct sy_stage_env *env, const struct sy_route_args *args,
                                  struct sy_bad_id *bad);
sy_status sy_cpu_route(const struct sy_stage_env *env, const struct sy_route_args *args);
sy_status sy_cpu_pack(const struct sy_stage_env *env, const struct sy_pack_args *args);
sy_status sy_cpu_pack_avx512(const struct sy_stage_env *env, const struct sy_pack_args *args);
sy_status sy_cpu_pack_by(const struct sy_quantiser *quantiser, const struct sy_stage_env *env,
                         const struct sy_pack_args *args);
sy_status sy_cpu_group(const struct sy_stage_env *env, const struct sy_group_args *args);

SY_API size_t sy_cpu_expert_bytes(const struct sy_stage_env *env);
SY_API sy_status sy_cpu_load_expert(const struct sy_stage_env *env, const struct sy_source *source,
                                    unsigned char *expert, struct sy_bad_weight *bad);
sy_status sy_cpu_load_expert_avx512(const struct sy_stage_env *env, const struct sy_source *source,
                                    unsigned char *expert, struct sy_bad_weight *bad);
sy_status sy_cpu_load_expert_by(const struct sy_quantiser *quantiser,
                                const struct sy_stage_env *env, const struct sy_source *source,
                                unsigned char *expert, struct sy_bad_weight *bad);

/* sy_cpu_<stage>_<level>, in a source that is compiled for a level. */
#define SY_CPU_NAME_(stage, suffix) sy_cpu_##stage##_##suffix
#define SY_CPU_NAME__(stage, suffix) SY_CPU_NAME_(stage, suffix)
#define SY_CPU_ENTRY(stage) SY_CPU_NAME__(stage, SY_CPU_SUFFIX)

/* Stages that are compiled for each instruction level from one source. */
#define SY_CPU_LEVEL(suffix)                                             \
  sy_status sy_cpu_experts_##suffix(const struct sy_stage_env *env,      \
                                    const struct sy_experts_args *args); \
  sy_status sy_cpu_reduce_##suffix(const struct sy_stage_env *env,       \
                                   const struct sy_reduce_args *args);   \
  sy_status sy_cpu_combine_##suffix(const struct sy_stage_env *env,      \
                                    const struct sy_combine_args *args);
SY_CPU_LEVEL(generic)
SY_CPU_LEVEL(x86_64_v3)
SY_CPU_LEVEL(x86_64_v4)
#undef SY_CPU_LEVEL

sy_status sy_cpu_experts_avx512(const struct sy_stage_env *env, const struct sy_experts_args *args);
sy_status sy_cpu_experts_avx512_bf16(const struct sy_stage_env *env,
                                     const struct sy_experts_args *args);

#endif
