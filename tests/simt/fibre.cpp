#include "tests/simt/fibre.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

namespace simt {

namespace context = boost::context::detail;

namespace {

/* A report of AddressSanitizer is written on the stack of the fibre that it is about. */
constexpr size_t STACK_BYTES = has_asan ? 512 * 1024 : 64 * 1024;

Fibre *running = nullptr;

} // namespace

Fibre::Fibre() {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  mapping_bytes_ = page + STACK_BYTES;
  void *mapping = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (mapping == MAP_FAILED || mprotect(mapping, page, PROT_NONE) != 0) {
    throw std::bad_alloc();
  }
  mapping_ = static_cast<char *>(mapping);
  stack_ = {mapping_ + page, STACK_BYTES};
}

Fibre::~Fibre() {
  allow(stack_.bottom, stack_.bytes);
  munmap(mapping_, mapping_bytes_);
}

void Fibre::start(void (*body)(void *), void *argument) {
  if (!is_clean_) {
    allow(stack_.bottom, stack_.bytes); /* AddressSanitizer's marks of the abandoned frames */
  }
  is_clean_ = false;
  body_ = body;
  argument_ = argument;
  fake_stack_ = nullptr;
  context_ = context::make_fcontext(mapping_ + mapping_bytes_, STACK_BYTES, &Fibre::enter);
}

void Fibre::enter(context::transfer_t from) {
  Fibre *self = static_cast<Fibre *>(from.data);
  after_switch(nullptr, &self->scheduler_stack_);
  self->scheduler_ = from.fctx;
  self->body_(self->argument_);
  self->is_clean_ = true;
  before_switch(nullptr, self->scheduler_stack_);
  context::jump_fcontext(self->scheduler_, nullptr);
}

void Fibre::resume() {
  running = this;
  void *fake_stack = nullptr;
  before_switch(&fake_stack, stack_);
  const context::transfer_t back = context::jump_fcontext(context_, this);
  after_switch(fake_stack, nullptr);
  context_ = back.fctx;
  running = nullptr;
}

void Fibre::suspend() {
  Fibre *self = running;
  before_switch(&self->fake_stack_, self->scheduler_stack_);
  const context::transfer_t back = context::jump_fcontext(self->scheduler_, nullptr);
  after_switch(self->fake_stack_, &self->scheduler_stack_);
  self->scheduler_ = back.fctx;
}

} // namespace simt
