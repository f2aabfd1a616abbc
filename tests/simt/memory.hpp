/* Memory between margins, filled with 0xFF: NaN in every float format, -1 as an index.
 *
 * The margins hold a pattern that is looked at when a block or a grid ends: writes that miss are
 * found in every build, and at once, like reads, under AddressSanitizer. */
#ifndef SY_TESTS_SIMT_MEMORY_HPP
#define SY_TESTS_SIMT_MEMORY_HPP

#include <cstddef>
#include <string>

#include "tests/simt/site.hpp"

namespace simt {

constexpr unsigned char POISON = 0xFF;

class GuardedMemory {
public:
  GuardedMemory() = default;
  explicit GuardedMemory(size_t bytes);
  ~GuardedMemory();
  GuardedMemory(GuardedMemory &&other) noexcept;
  GuardedMemory &operator=(GuardedMemory &&other) noexcept;

  char *data() const { return data_; }
  size_t bytes() const { return bytes_; }
  bool holds(const void *p, size_t bytes) const;

  /* Whether p lies in it or in its margins; *text_out then says where. */
  bool locate(const void *p, std::string *text_out) const;

  /* Whether a margin was written to; *text_out then says where. Mends it. */
  bool is_damaged(std::string *text_out);

private:
  void fill_margins();

  char *data_ = nullptr;
  size_t bytes_ = 0;
};

/* The device's global memory. nullptr when there is none left. `hidden`: the host may not touch it,
 * and AddressSanitizer says so, unless a DeviceTurn is under way. */
void *device_malloc(size_t bytes, bool hidden = false);

/* Whether p was the start of a piece of device memory. */
bool device_free(void *p);

/* Whether [p, p + bytes) lies in one piece of device memory. */
bool is_device_memory(const void *p, size_t bytes);

/* The piece of device memory that p lies in, or nullptr. */
const GuardedMemory *device_piece(const void *p);

/* Hidden memory, all of it, as the device sees it (nobody forbids) or as the host does. */
void show_hidden_memory();
void hide_hidden_memory();

/* As GuardedMemory's, for all device memory. */
bool locate_in_device_memory(const void *p, std::string *text_out);
bool is_device_memory_damaged(std::string *text_out);

/* Fails unless the running thread may touch these bytes: they lie in device memory, or in its
 * block's shared memory where no copy is under way; `alignment` divides the address. */
void check_global(const void *p, size_t bytes, size_t alignment, const char *what, Site site);
void check_shared(const void *p, size_t bytes, size_t alignment, const char *what, Site site);

} // namespace simt

#endif
