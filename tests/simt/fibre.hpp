/* A fibre: a function with a stack of its own, that the scheduler resumes and that suspends itself.
 *
 * All fibres of a process live on one OS thread. A fibre may be left suspended for ever: start()
 * begins anew on the same stack, and nothing of the abandoned call is destroyed. */
#ifndef SY_TESTS_SIMT_FIBRE_HPP
#define SY_TESTS_SIMT_FIBRE_HPP

#include <cstddef>

#include <boost/context/detail/fcontext.hpp>

#include "tests/simt/sanitizer.hpp"

namespace simt {

class Fibre {
public:
  Fibre();
  ~Fibre();
  Fibre(const Fibre &) = delete;
  Fibre &operator=(const Fibre &) = delete;

  void start(void (*body)(void *), void *argument);

  /* From the scheduler: runs the fibre until it suspends or its body returns. */
  void resume();

  /* From within a fibre: back to the scheduler, until resumed. */
  static void suspend();

private:
  static void enter(boost::context::detail::transfer_t from);

  char *mapping_; /* a guard page, then the stack */
  size_t mapping_bytes_;
  StackBounds stack_;
  boost::context::detail::fcontext_t context_ = nullptr; /* where it goes on */
  boost::context::detail::fcontext_t scheduler_ = nullptr;
  StackBounds scheduler_stack_;
  void *fake_stack_ = nullptr;
  bool is_clean_ = true; /* no frame was left behind on the stack */
  void (*body_)(void *) = nullptr;
  void *argument_ = nullptr;
};

} // namespace simt

#endif
