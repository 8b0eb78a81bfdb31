/* Identifiers of random digits (uuid.h). */

#include "uuid.h"
#include "bytes.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

void random_bytes(void *into, size_t size) {
  for (size_t have = 0; have < size;) {
    ssize_t count = getrandom((uint8_t *)into + have, size - have, 0);
    if (count > 0) have += (size_t)count;
    else if (errno != EINTR) abort(); /* the kernel always has some: a secret must not be guessed */
  }
}

void make_uuid(char into[UUID + 1]) {
  uint8_t bytes[16];
  random_bytes(bytes, sizeof bytes);
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  for (size_t at = 0, to = 0; at < sizeof bytes; at++, to += 2) {
    if (at == 4 || at == 6 || at == 8 || at == 10) into[to++] = '-';
    snprintf(into + to, 3, "%02x", bytes[at]);
  }
}

char *new_uuid(void) {
  char *uuid = memory(UUID + 1);
  make_uuid(uuid);
  return uuid;
}
