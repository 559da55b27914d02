// Error: what validation throws. The Python layer maps code -> exception class. Kernels never throw.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <exception>
#include <string>

namespace fastdl {

enum class ErrorCode { Shape, DType, Index, Value, Type, Device, OutOfMemory, Format, Grad, Capture };

class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string text) : code(code), text(std::move(text)) {}
  const char* what() const noexcept override { return text.c_str(); }
  ErrorCode code;
  std::string text;
};

// fail(ErrorCode::Shape, "matmul: inner sizes differ: a is %s, b is %s; need ...", ...)
[[noreturn]] void fail(ErrorCode code, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace fastdl
