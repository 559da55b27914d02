// Random words of a stream on the device (core/philox.h), drawn as the CPU draws them: element e of a call takes word e % 4 of
// block offset + e / 4, or the 64 bits of words 2 (e % 2) and the next of block offset + e / 2.
#pragma once
#include "core/philox.h"
#include "cuda/kernel.h"

namespace fastdl {
namespace {

struct RandomStream {
  uint64_t key, offset;

  FD_DEVICE PhiloxBlock block(int64_t number) const { return philox4x32(0, offset + uint64_t(number), key); }
};
inline RandomStream stream_of(const Args& a) { return {uint64_t(a.attrs->i[0]), uint64_t(a.attrs->i[1])}; }

FD_DEVICE uint64_t word64(const PhiloxBlock& b, int k) { return b.w[2 * k] | uint64_t(b.w[2 * k + 1]) << 32; }

}  // namespace
}  // namespace fastdl
