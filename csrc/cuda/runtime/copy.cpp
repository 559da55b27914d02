// Copies from pageable host memory. cudaMemcpyAsync reads page-locked memory after it has returned and pageable memory before, and
// which of the two a pointer is cannot be seen; waiting for the stream would be safe, but the host could never run ahead of the
// device. So host memory is copied, piece by piece, into a ring of page-locked memory of ours, from where the copy engine takes it
// in stream order: the source is free on return and nothing is waited for, except for room in the ring.
#include <cstring>

#include "cuda/runtime/runtime.h"

namespace fastdl::cuda {
namespace {

constexpr int64_t kRing = int64_t(16) << 20, kPiece = int64_t(2) << 20;  // several pieces: memcpy overlaps with the copy engine
constexpr int64_t kAlign = 256;

}  // namespace

// Room for `bytes` <= kPiece in the ring. Positions count on for ever; a piece does not run over the ring's end.
CudaStatus Staging::reserve(int64_t bytes, Piece* piece) {
  if (!ring_) {
    void* p = nullptr;
    FD_CHECK(cudaHostAlloc(&p, size_t(kRing), cudaHostAllocPortable), "allocate pinned memory");
    ring_ = static_cast<char*>(p);
  }
  const int64_t size = (bytes + kAlign - 1) / kAlign * kAlign;
  if (head_ % kRing + size > kRing) head_ += kRing - head_ % kRing;
  while (!in_flight_.empty() && head_ + size - in_flight_.front().begin > kRing) {
    FD_CHECK(cudaEventSynchronize(in_flight_.front().done), "wait for a copy to the device");
    spare_events_.push_back(in_flight_.front().done);
    in_flight_.pop_front();
  }
  if (spare_events_.empty()) {
    cudaEvent_t event = nullptr;
    FD_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "create an event");
    spare_events_.push_back(event);
  }
  *piece = {head_, spare_events_.back()};
  in_flight_.push_back(*piece);
  spare_events_.pop_back();
  head_ += size;
  return CudaStatus::Ok;
}

CudaStatus Staging::copy(void* to, const void* from, int64_t bytes, cudaStream_t stream) {
  for (int64_t at = 0; at < bytes; at += kPiece) {
    const int64_t n = bytes - at < kPiece ? bytes - at : kPiece;
    std::lock_guard<std::mutex> lock(mutex_);  // of one piece: small copies of other threads get between
    Piece piece;
    FD_PASS(reserve(n, &piece));
    char* staged = ring_ + piece.begin % kRing;
    memcpy(staged, static_cast<const char*>(from) + at, size_t(n));
    FD_CHECK(cudaMemcpyAsync(static_cast<char*>(to) + at, staged, size_t(n), cudaMemcpyHostToDevice, stream), "copy to the device");
    FD_CHECK(cudaEventRecord(piece.done, stream), "record an event");
  }
  return CudaStatus::Ok;
}

}  // namespace fastdl::cuda
