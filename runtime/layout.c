#include "runtime/layout.h"

#include <string.h>

/* Products of up to four factors below 2^32 are exact in 128 bits; only the results are checked. */
__extension__ typedef unsigned __int128 sy_wide;

static sy_wide min(sy_wide a, sy_wide b) { return a < b ? a : b; }

/* One line of the list, evaluated. */
struct buffer {
  const char *name;
  const char *formula;
  sy_wide rows;
  sy_wide row_bytes;
  enum sy_direction direction; /* exchange only */
  bool in;                     /* exchange only */
};

#define SY_MAX_BUFFERS 32

/* The names of the formulas. Each list uses some of them. */
#define SY_FORMULA_TERMS(d)                    \
  const sy_wide W = (sy_wide)(d)->world;       \
  const sy_wide K = (sy_wide)(d)->top_k;       \
  const sy_wide C = (sy_wide)(d)->wave_tokens; \
  const bool gather = (d)->gather;             \
  const bool per_slot = (d)->per_slot

static size_t list_scratch(const struct sy_dims *d, struct buffer *buffers) {
  SY_FORMULA_TERMS(d);
  const sy_wide H = (sy_wide)d->hidden;
  const sy_wide I = (sy_wide)d->intermediate;
  const sy_wide E_local = (sy_wide)d->local_experts;
  const sy_wide M = (sy_wide)d->chunk_rows;
  const sy_wide routed = M * min(K, E_local);
  const bool w4a4 = d->mode == SY_MODE_W4A4;
  const bool nvfp4 = w4a4 && d->format == SY_FORMAT_NVFP4;
  const sy_wide block = (sy_wide)sy_scale_block(d->format);
  size_t count = 0;
#define SY_LIST(field, type, rows_, elements)           \
  buffers[count++] = (struct buffer){.name = #field,    \
                                     .formula = #rows_, \
                                     .rows = (rows_),   \
                                     .row_bytes = (sy_wide)(elements) * sizeof(type)};
  SY_SCRATCH_BUFFERS(SY_LIST)
#undef SY_LIST
  return count;
}

static size_t list_exchange(const struct sy_dims *d, struct buffer *buffers) {
  SY_FORMULA_TERMS(d);
  const bool exact = d->exact;
  const bool fixed = d->fixed;
  const sy_wide back = per_slot ? min(K, (sy_wide)d->max_local_experts) : 1;
  const sy_wide header_bytes = sizeof(struct sy_wire_header);
  const sy_wide row_bytes = d->row_bytes;
  const sy_wide return_row_bytes = d->return_row_bytes;
  enum { out = 0, in = 1 };
  size_t count = 0;
#define SY_LIST(name_, arena, direction_, rows_, row_bytes_)    \
  buffers[count++] = (struct buffer){.name = #name_,            \
                                     .formula = #rows_,         \
                                     .rows = (rows_),           \
                                     .row_bytes = (row_bytes_), \
                                     .direction = (direction_), \
                                     .in = (arena) == in};
  SY_EXCHANGE_BUFFERS(SY_LIST)
#undef SY_LIST
  return count;
}

static sy_wide padded(sy_wide bytes) {
  return (bytes + SY_SCRATCH_ALIGN - 1) / SY_SCRATCH_ALIGN * SY_SCRATCH_ALIGN;
}

sy_status sy_scratch_layout(const struct sy_dims *dims, void *base, struct sy_scratch *scratch_out,
                            size_t *bytes_out) {
  struct buffer buffers[SY_MAX_BUFFERS];
  void *starts[SY_MAX_BUFFERS] = {NULL};
  const size_t count = list_scratch(dims, buffers);
  sy_wide offset = 0;
  for (size_t i = 0; i < count; ++i) {
    starts[i] = base == NULL ? NULL : (unsigned char *)base + (size_t)offset;
    offset += padded(buffers[i].rows * buffers[i].row_bytes) + SY_FENCE_BYTES;
  }
  if (offset > SIZE_MAX) {
    return SY_ERR_OVERFLOW;
  }
  if (base != NULL) {
    size_t i = 0;
#define SY_CARVE(field, type, rows, elements) scratch_out->field = (type *)starts[i++];
    SY_SCRATCH_BUFFERS(SY_CARVE)
#undef SY_CARVE
  }
  *bytes_out = (size_t)offset;
  return SY_OK;
}

sy_status sy_exchange_layout(const struct sy_dims *dims, struct sy_arena_bytes *arenas_out,
                             size_t *total_out) {
  struct buffer buffers[SY_MAX_BUFFERS];
  const size_t count = list_exchange(dims, buffers);
  sy_wide bytes[2][SY_NUM_DIRECTIONS] = {{0}};
  sy_wide total = 0;
  for (size_t i = 0; i < count; ++i) {
    bytes[buffers[i].in][buffers[i].direction] += buffers[i].rows * buffers[i].row_bytes;
    total += buffers[i].rows * buffers[i].row_bytes;
  }
  if (total > SIZE_MAX) {
    return SY_ERR_OVERFLOW;
  }
  for (int d = 0; d < SY_NUM_DIRECTIONS; ++d) {
    arenas_out->out[d] = (size_t)bytes[0][d];
    arenas_out->in[d] = (size_t)bytes[1][d];
  }
  *total_out = (size_t)total;
  return SY_OK;
}

static size_t describe(const struct buffer *buffers, size_t count, const char *memory,
                       sy_buffer_info *buffers_out, size_t capacity) {
  for (size_t i = 0; i < count && i < capacity; ++i) {
    buffers_out[i] = (sy_buffer_info){.name = buffers[i].name,
                                      .formula = buffers[i].formula,
                                      .memory = memory,
                                      .rows = (uint64_t)buffers[i].rows,
                                      .row_bytes = (uint64_t)buffers[i].row_bytes,
                                      .bytes = (uint64_t)(buffers[i].rows * buffers[i].row_bytes)};
  }
  return count;
}

size_t sy_layout_describe(const struct sy_dims *dims, sy_buffer_info *buffers_out,
                          size_t capacity) {
  struct buffer buffers[SY_MAX_BUFFERS];
  const size_t exchange =
      describe(buffers, list_exchange(dims, buffers), "exchange", buffers_out, capacity);
  const size_t left = capacity > exchange ? capacity - exchange : 0;
  return exchange + describe(buffers, list_scratch(dims, buffers), "scratch",
                             left > 0 ? buffers_out + exchange : NULL, left);
}

/* ---- Fences ---- */

#if defined(SY_FENCES)

#if defined(__SANITIZE_ADDRESS__)
#define SY_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SY_ASAN 1
#endif
#endif
#if defined(SY_ASAN)
#include <sanitizer/asan_interface.h>
#endif

#define SY_FENCE_BYTE 0xFE

/* Calls `visit` for each fence: from the end of the buffer's bytes, padding included. */
static int visit_fences(const struct sy_dims *dims, unsigned char *base,
                        bool (*visit)(unsigned char *fence, size_t bytes)) {
  struct buffer buffers[SY_MAX_BUFFERS];
  const size_t count = list_scratch(dims, buffers);
  size_t offset = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t used = (size_t)(buffers[i].rows * buffers[i].row_bytes);
    const size_t next = offset + (size_t)padded(used) + SY_FENCE_BYTES;
    if (!visit(base + offset + used, next - offset - used)) {
      return (int)i;
    }
    offset = next;
  }
  return -1;
}

#if defined(SY_ASAN)
static bool raise_fence(unsigned char *fence, size_t bytes) {
  ASAN_POISON_MEMORY_REGION(fence, bytes);
  return true;
}

static bool lower_fence(unsigned char *fence, size_t bytes) {
  ASAN_UNPOISON_MEMORY_REGION(fence, bytes);
  return true;
}

/* Under AddressSanitizer a write to a fence is reported where it happens. */
static bool fence_holds(unsigned char *fence, size_t bytes) {
  (void)fence;
  (void)bytes;
  return true;
}
#else
static bool raise_fence(unsigned char *fence, size_t bytes) {
  memset(fence, SY_FENCE_BYTE, bytes);
  return true;
}

static bool lower_fence(unsigned char *fence, size_t bytes) {
  (void)fence;
  (void)bytes;
  return true;
}

static bool fence_holds(unsigned char *fence, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    if (fence[i] != SY_FENCE_BYTE) {
      return false;
    }
  }
  return true;
}
#endif

void sy_scratch_fence(const struct sy_dims *dims, void *base) {
  visit_fences(dims, base, raise_fence);
}

void sy_scratch_unfence(const struct sy_dims *dims, void *base) {
  visit_fences(dims, base, lower_fence);
}

int sy_scratch_check_fences(const struct sy_dims *dims, const void *base) {
  return visit_fences(dims, (unsigned char *)(uintptr_t)base, fence_holds);
}

#else

void sy_scratch_fence(const struct sy_dims *dims, void *base) {
  (void)dims;
  (void)base;
}

void sy_scratch_unfence(const struct sy_dims *dims, void *base) {
  (void)dims;
  (void)base;
}

int sy_scratch_check_fences(const struct sy_dims *dims, const void *base) {
  (void)dims;
  (void)base;
  return -1;
}

#endif
