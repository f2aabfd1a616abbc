/* A place in a source: where a thread called something that the emulator provides. */
#ifndef SY_TESTS_SIMT_SITE_HPP
#define SY_TESTS_SIMT_SITE_HPP

#include <cstring>

namespace simt {

struct Site {
  const char *file = "?";
  int line = 0;

  /* As a default argument: the caller's place. */
  static constexpr Site here(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

/* Mostly the pointers decide. */
inline bool same_text(const char *a, const char *b) { return a == b || std::strcmp(a, b) == 0; }

inline bool operator==(Site a, Site b) { return a.line == b.line && same_text(a.file, b.file); }

} // namespace simt

#endif
