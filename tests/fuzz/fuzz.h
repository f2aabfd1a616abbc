/* A fuzz target feeds any bytes to one reader and checks what the reader promises. libFuzzer
 * (preset `fuzz`) makes inputs up; replay.c feeds it the corpus where there is no libFuzzer. */
#ifndef SY_TESTS_FUZZ_FUZZ_H
#define SY_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* libFuzzer's entry; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process where the promise is broken: the fuzzer then keeps the input. */
#define FUZZ_CHECK(condition) ((condition) ? (void)0 : fuzz_broken(__FILE__, __LINE__, #condition))
_Noreturn void fuzz_broken(const char *file, int line, const char *condition);

/* A refusal has a sentence, and nothing in it that a terminal would obey. */
void fuzz_check_sentence(const char *sentence);

/* A file in memory with these bytes and then zero_bytes zeros; returns its path, the same each
 * time. */
const char *fuzz_file(const void *bytes, size_t num_bytes, size_t zero_bytes);

#endif
