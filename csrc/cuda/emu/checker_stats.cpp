// Counts what the memory system would do. Lanes run one after another here, so the k-th time that each lane of a warp comes by an
// instruction is taken for one request of the warp. Global memory: distinct 32-byte sectors per request against the least that hold
// the bytes. Shared memory: passes (wavefronts) through the 32 banks of 4 bytes, of 32 lanes for accesses up to 4 bytes, of 16 for
// 8, of 8 for 16; in one pass lanes may share words, distinct words of one bank follow each other. Only the first blocks of a
// launch and the first requests of an instruction are counted.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <unordered_map>

#include "cuda/emu/checker.h"

namespace fastdl {
namespace emu {

bool stats_on;

namespace {

constexpr int kBlocksCounted = 2;
constexpr size_t kRequestsCounted = 256;  // per instruction and warp of a block

struct Request {
  uint32_t lanes = 0;
  uint64_t address[kWarp];
};
struct Instruction {
  const void* pc;
  bool write;
  Space space;
  size_t bytes;
  std::vector<std::vector<Request>> warp;  // [warp][k]
  std::vector<uint16_t> times;             // [thread]: came by so often
};
struct Counts {
  uint64_t requests = 0, bytes = 0, transfers = 0, ideal = 0;  // transfers: sectors or wavefronts
};
struct Key {
  void (*kernel)();
  const void* pc;
  size_t bytes;
  bool write;
  Space space;
  bool operator<(const Key& o) const {
    return std::tie(kernel, pc, bytes, write, space) < std::tie(o.kernel, o.pc, o.bytes, o.write, o.space);
  }
};

bool wanted;
int blocks_seen;
std::unordered_map<const void*, size_t> index_of;
std::vector<Instruction> instructions;
std::map<Key, Counts> totals;

size_t distinct(std::vector<uint64_t>& values) {
  std::sort(values.begin(), values.end());
  return size_t(std::unique(values.begin(), values.end()) - values.begin());
}

void count_global(const Request& r, size_t bytes, Counts& c) {
  std::vector<uint64_t> sectors, all;
  for (int l = 0; l < kWarp; l++) {
    if (!(r.lanes >> l & 1)) continue;
    for (uint64_t a = r.address[l]; a < r.address[l] + bytes; a++) all.push_back(a);
    for (uint64_t s = r.address[l] / 32; s <= (r.address[l] + bytes - 1) / 32; s++) sectors.push_back(s);
  }
  c.transfers += distinct(sectors);
  c.ideal += (distinct(all) + 31) / 32;
}

void count_shared(const Request& r, size_t bytes, Counts& c) {
  const int at_once = bytes <= 4 ? 32 : bytes <= 8 ? 16 : 8;
  for (int first = 0; first < kWarp; first += at_once) {
    std::vector<uint64_t> words;
    for (int l = first; l < first + at_once; l++)
      if (r.lanes >> l & 1)
        for (uint64_t w = r.address[l] / 4; w <= (r.address[l] + bytes - 1) / 4; w++) words.push_back(w);
    if (words.empty()) continue;
    words.resize(distinct(words));
    int bank[32] = {}, most = 0;
    for (uint64_t w : words) most = std::max(most, ++bank[w % 32]);
    c.transfers += uint64_t(most);
    c.ideal++;
  }
}

std::string json_text(const std::string& s) {
  std::string out;
  for (char ch : s) {
    if (ch == '"' || ch == '\\') out += '\\';
    out += ch;
  }
  return out;
}

std::string report() {
  std::vector<const void*> pcs;
  for (const auto& [key, counts] : totals) pcs.push_back(key.pc);
  std::map<const void*, std::string> places;
  symbolize(pcs, &places);
  // One row per place in the source: the compiler may have made several instructions of it.
  std::map<std::tuple<std::string, std::string, size_t, bool, Space>, Counts> rows;
  for (const auto& [key, counts] : totals) {
    Counts& row = rows[{function_name(reinterpret_cast<const void*>(key.kernel)), places[key.pc], key.bytes, key.write, key.space}];
    row.requests += counts.requests;
    row.bytes += counts.bytes;
    row.transfers += counts.transfers;
    row.ideal += counts.ideal;
  }
  std::string s = "[";
  for (const auto& [key, c] : rows) {
    const auto& [kernel_name, place, bytes, write, space] = key;
    char numbers[256];
    std::snprintf(numbers, sizeof numbers,
                  "\"space\": \"%s\", \"access\": \"%s\", \"bytes\": %zu, \"requests\": %llu, \"%s\": %llu, \"ideal\": %llu}",
                  space == Space::Shared ? "shared" : "global", write ? "store" : "load", bytes,
                  static_cast<unsigned long long>(c.requests), space == Space::Shared ? "wavefronts" : "sectors",
                  static_cast<unsigned long long>(c.transfers), static_cast<unsigned long long>(c.ideal));
    s += (s.size() > 1 ? ",\n " : "") + std::string("{\"kernel\": \"") + json_text(kernel_name) + "\", \"place\": \"" +
         json_text(place) + "\", " + numbers;
  }
  return s + "]";
}

}  // namespace

void stats_begin_launch() { blocks_seen = 0; }
void stats_begin_block() {
  stats_on = wanted && blocks_seen++ < kBlocksCounted;
  index_of.clear();
  instructions.clear();
}
void stats_end_block() {
  if (!stats_on) return;
  stats_on = false;
  for (const Instruction& i : instructions) {
    Counts& c = totals[{block.launch->kernel, i.pc, i.bytes, i.write, i.space}];
    for (const auto& requests : i.warp) {
      for (const Request& r : requests) {
        c.requests++;
        c.bytes += i.bytes * size_t(__builtin_popcount(r.lanes));
        i.space == Space::Shared ? count_shared(r, i.bytes, c) : count_global(r, i.bytes, c);
      }
    }
  }
}

void stats_access(const void* p, size_t bytes, bool write, Space space, const void* pc) {
  // A copy has a load and a store at one pc.
  const void* id = static_cast<const char*>(pc) + (write ? 1 : 0);
  auto found = index_of.find(id);
  if (found == index_of.end()) {
    found = index_of.emplace(id, instructions.size()).first;
    instructions.push_back({pc, write, space, bytes, std::vector<std::vector<Request>>(size_t(block.warps)),
                            std::vector<uint16_t>(size_t(block.threads))});
  }
  Instruction& i = instructions[found->second];
  const size_t k = i.times[size_t(block.current)];
  if (k >= kRequestsCounted) return;
  i.times[size_t(block.current)]++;
  auto& requests = i.warp[size_t(block.current / kWarp)];
  if (requests.size() <= k) requests.resize(k + 1);
  requests[k].lanes |= 1u << block.lane();
  requests[k].address[block.lane()] = reinterpret_cast<uintptr_t>(p);
}

}  // namespace emu
}  // namespace fastdl

// Counting on (and earlier counts forgotten) or off.
extern "C" __attribute__((visibility("default"))) void fastdl_emu_count(int on) {
  fastdl::emu::wanted = on;
  if (on) fastdl::emu::totals.clear();
}
// The counts as JSON, a list of {kernel, place, space, access, bytes, requests, sectors or wavefronts, ideal}; returns the size
// that the text needs, without the final 0.
extern "C" __attribute__((visibility("default"))) size_t fastdl_emu_report(char* text, size_t size) {
  const std::string s = fastdl::emu::report();
  if (size) {
    const size_t n = std::min(size - 1, s.size());
    std::memcpy(text, s.data(), n);
    text[n] = 0;
  }
  return s.size();
}
