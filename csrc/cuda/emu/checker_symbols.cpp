// Places in the source for addresses of code, by the addr2line of binutils when there is one: run once per report.
#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "cuda/emu/checker.h"

namespace fastdl {
namespace emu {
namespace {

struct Image {
  const char* base = nullptr;
  const char* end = nullptr;
  std::string path;
};

const Image& image() {
  static const Image found = [] {
    Image i;
    Dl_info info;
    if (!dladdr(reinterpret_cast<const void*>(&symbolize), &info)) return i;
    i.base = static_cast<const char*>(info.dli_fbase);
    i.path = info.dli_fname;
    dl_iterate_phdr(
        [](dl_phdr_info* module, size_t, void* out) {
          auto* i = static_cast<Image*>(out);
          for (int s = 0; s < module->dlpi_phnum; s++) {
            const auto& segment = module->dlpi_phdr[s];
            const char* begin = reinterpret_cast<const char*>(module->dlpi_addr + segment.p_vaddr);
            if (segment.p_type == PT_LOAD && reinterpret_cast<const char*>(module->dlpi_addr) == i->base &&
                begin + segment.p_memsz > i->end)
              i->end = begin + segment.p_memsz;
          }
          return 0;
        },
        &i);
    return i;
  }();
  return found;
}

std::string short_path(const std::string& path) {
  const size_t at = path.rfind("csrc/");
  if (at != std::string::npos) return path.substr(at);
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace

const char* const image_begin = image().base;
const char* const image_end = image().end;

std::string function_name(const void* code) {
  static std::map<const void*, std::string> known;
  std::string& name = known[code];
  if (!name.empty()) return name;
  char command[4096], line[4096] = "";
  std::snprintf(command, sizeof command, "addr2line -f -C -e '%s' %#zx 2>/dev/null", image().path.c_str(),
                size_t(static_cast<const char*>(code) - image().base));
  if (FILE* out = popen(command, "r")) {
    if (std::fgets(line, sizeof line, out)) name = line;
    pclose(out);
  }
  // "void fastdl::(anonymous namespace)::softmax_kernel<float, 4>(float const*, ...)" to "softmax_kernel<float, 4>"
  for (const char* noise : {"fastdl::", "(anonymous namespace)::"})
    for (size_t at; (at = name.find(noise)) != std::string::npos;) name.erase(at, std::strlen(noise));
  if (name.compare(0, 5, "void ") == 0) name.erase(0, 5);
  name.erase(std::min({name.find('('), name.find('\n'), name.size()}));
  return name;
}

void symbolize(const std::vector<const void*>& pcs, std::map<const void*, std::string>* places) {
  static std::map<const void*, std::string> known;
  std::vector<const void*> wanted;
  for (const void* pc : pcs)
    if (pc && !known.count(pc)) wanted.push_back(pc);
  constexpr size_t kAtOnce = 500;  // addresses on one command line
  for (size_t i = 0; i < wanted.size(); i += kAtOnce) {
    std::string command = "addr2line -a -i -e '" + image().path + "'";
    for (size_t k = i; k < wanted.size() && k < i + kAtOnce; k++) {
      char address[32];
      std::snprintf(address, sizeof address, " %#zx", size_t(static_cast<const char*>(wanted[k]) - image().base));
      command += address;
    }
    FILE* out = popen((command + " 2>/dev/null").c_str(), "r");
    if (!out) break;
    char line[4096];
    size_t k = i - 1;  // "0x..." announces the next address, then one line per inlined frame, the innermost first
    while (std::fgets(line, sizeof line, out)) {
      line[std::strcspn(line, "\n")] = 0;
      if (std::strncmp(line, "0x", 2) == 0) {
        k++;
        continue;
      }
      if (k >= wanted.size()) break;
      if (char* remark = std::strstr(line, " (discriminator")) *remark = 0;
      std::string& text = known[wanted[k]];
      if (std::strstr(line, "cuda/emu/") || line[0] == '?') continue;
      const std::string frame = short_path(line);
      if (text != frame) text += (text.empty() ? "" : ", from ") + frame;
    }
    pclose(out);
  }
  for (const void* pc : pcs) {
    std::string& text = known[pc];
    if (text.empty()) {
      Dl_info info;
      char line[512];
      const bool named = pc && dladdr(pc, &info) && info.dli_sname;
      std::snprintf(line, sizeof line, "%s+%#zx", named ? info.dli_sname : "code",
                    size_t(static_cast<const char*>(pc) - (named ? static_cast<const char*>(info.dli_saddr) : image().base)));
      text = line;
    }
    (*places)[pc] = text;
  }
}

}  // namespace emu
}  // namespace fastdl
