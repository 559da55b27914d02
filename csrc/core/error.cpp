#include "error.h"

namespace fastdl {

void fail(ErrorCode code, const char* format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  const int length = vsnprintf(nullptr, 0, format, args);
  va_end(args);
  std::string text(length > 0 ? size_t(length) : 0, '\0');
  if (length > 0) vsnprintf(text.data(), size_t(length) + 1, format, again);
  va_end(again);
  throw Error(code, std::move(text));
}

}  // namespace fastdl
