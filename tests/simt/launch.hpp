/* Kernel launches: SY_LAUNCH ends here. */
#ifndef SY_TESTS_SIMT_LAUNCH_HPP
#define SY_TESTS_SIMT_LAUNCH_HPP

#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include <driver_types.h>

#include "tests/simt/machine.hpp"

namespace simt {

/* Keeps the device's limits, runs all threads to their end, and returns the first violation. */
std::optional<Violation> run(const Launch &launch);

/* Where a launch goes. At first it runs at once, and a violation becomes an error code and is kept
 * for take_violation(). A stand-in for the CUDA runtime puts its streams here. */
extern cudaError_t (*enqueue)(cudaStream_t stream, Launch launch);

/* What `enqueue` does at first. */
cudaError_t run_now(cudaStream_t stream, Launch launch);

/* The error code of the launch that a violation ended; the violation is kept. */
cudaError_t keep_violation(Violation violation);

/* Keeps the words of `values` that are addresses in device memory. */
void note_arguments(const void *values, size_t bytes, Launch *launch);

/* The first violation since it was last asked for. */
std::optional<Violation> take_violation();

template <class... Parameters, class... Arguments>
cudaError_t launch(const char *name, bool cooperative, dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, void (*kernel)(Parameters...), Arguments &&...arguments) {
  /* Arguments are copied when the kernel is launched, not when it runs. */
  std::tuple<std::decay_t<Parameters>...> values(std::forward<Arguments>(arguments)...);
  Launch launch = {name, grid, block, shared_bytes, cooperative, {}, {}};
  note_arguments(&values, sizeof values, &launch);
  launch.body = [kernel, values] { std::apply(kernel, values); };
  return enqueue(stream, std::move(launch));
}

} // namespace simt

#endif
