// The torch-free module: NumPy arrays in and out, the GIL released while it computes.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "halves.h"
#include "permutations.h"
#include "ranks.h"

namespace py = pybind11;

namespace {

using Matrix = py::array_t<double, py::array::c_style | py::array::forcecast>;

void check_length(int64_t n) {
  if (n > dp::host::kMost)
    throw py::value_error("expected at most " + std::to_string(dp::host::kMost) + " values to rank, got " +
                          std::to_string(n));
}

void check(const Matrix& x, py::ssize_t dimensions = 2) {
  if (x.ndim() != dimensions)
    throw py::value_error(std::string("expected an array [") + (dimensions == 2 ? "rows, " : "") + "values], got " +
                          std::to_string(x.ndim()) + " dimensions");
  check_length(x.shape(dimensions - 1));
  const double* data = x.data();
  for (py::ssize_t i = 0; i < x.size(); ++i) {
    if (std::isnan(data[i]))
      throw py::value_error("NaN has no rank: drop or fill it first (flat position " + std::to_string(i) + ")");
  }
}

py::array_t<double> rank_rows(const Matrix& x) {
  check(x);
  const int64_t rows = x.shape(0), n = x.shape(1);
  py::array_t<double> ranks({rows, n});
  const double* in = x.data();
  double* out = ranks.mutable_data();
  {
    py::gil_scoped_release release;
    dp::host::for_each_in_parallel(rows, 16 * n,
                                   [&](int64_t r) { dp::host::average_ranks(in + r * n, n, out + r * n); });
  }
  return ranks;
}

py::tuple standard_ranks(const Matrix& x) {
  check(x, 1);
  const int64_t n = x.shape(0);
  py::array_t<double> ranks(n);
  const double* in = x.data();
  double *out = ranks.mutable_data(), together = 0;
  {
    py::gil_scoped_release release;
    together = dp::host::standard_ranks(in, n, out);
  }
  return py::make_tuple(ranks, together);
}

py::array_t<double> compare_halves(const Matrix& means, const py::array_t<int32_t, py::array::c_style>& group,
                                   int32_t groups) {
  if (means.ndim() != 2 || means.shape(0) % 2 != 0 || group.ndim() != 1 || group.shape(0) != means.shape(1))
    throw py::value_error("expected means [2 x splits, n] and group [n]");
  check_length(means.shape(1));
  const int64_t splits = means.shape(0) / 2, n = means.shape(1);
  for (int64_t i = 0; i < n; ++i) {
    if (group.data()[i] < 0 || group.data()[i] >= groups) throw py::value_error("group: expected 0..groups-1");
  }
  py::array_t<double> found(std::vector<py::ssize_t>{splits, 1 + groups, 2});
  const double* in = means.data();
  const int32_t* group_of = group.data();
  auto* out = reinterpret_cast<dp::host::Compared*>(found.mutable_data());
  {
    py::gil_scoped_release release;
    dp::host::for_each_in_parallel(splits, 64 * n, [&](int64_t s) {
      dp::host::compare_halves(in + 2 * s * n, in + (2 * s + 1) * n, n, group_of, groups, out + s * (1 + groups));
    });
  }
  return found;
}

py::array_t<double> spearman_matrix(const Matrix& x) {
  check(x);
  const int64_t rows = x.shape(0), n = x.shape(1);
  py::array_t<double> matrix({rows, rows});
  const double* in = x.data();
  double* out = matrix.mutable_data();
  {
    py::gil_scoped_release release;
    dp::host::spearman_matrix(in, rows, n, out);
  }
  return matrix;
}

using Groups = py::array_t<int16_t, py::array::c_style>;

py::array_t<int64_t> count_as_large(const Matrix& scores, const Matrix& threshold, const Groups& groups) {
  const auto shape = [](const py::array& x) {
    return "[" + std::to_string(x.ndim() > 0 ? x.shape(0) : 0) + ", " + std::to_string(x.ndim() > 1 ? x.shape(1) : 0) +
           "]";
  };
  const bool matrices = scores.ndim() == 2 && groups.ndim() == 2 && threshold.ndim() == 1;
  if (!matrices || groups.shape(0) == 0 || groups.shape(1) == 0 || groups.shape(1) != scores.shape(0) ||
      threshold.shape(0) != scores.shape(1)) {
    throw py::value_error("expected scores [runs, n], threshold [n] and groups [assignments, runs], got " +
                          shape(scores) + ", " + shape(threshold) + " and " + shape(groups));
  }
  if (*std::min_element(groups.data(), groups.data() + groups.size()) < 0)
    throw py::value_error("groups: expected 0 or more");
  py::array_t<int64_t> found(threshold.shape(0));
  int64_t* out = found.mutable_data();
  {
    py::gil_scoped_release release;
    const auto packed = dp::host::pack(groups.data(), groups.shape(0), groups.shape(1));
    dp::host::count_as_large(scores.data(), scores.shape(0), scores.shape(1), threshold.data(), packed, out);
  }
  return found;
}

// The position of the first value outside 0..limit-1, or -1.
int64_t first_outside(const py::array_t<int64_t>& values, int64_t limit) {
  if (values.ndim() != 1) throw py::value_error("expected an array [values]");
  const auto at = values.unchecked<1>();
  uint64_t inside = 1;  // no early exit, so that the loop vectorises: nearly always all are inside
  for (py::ssize_t i = 0; i < at.shape(0); ++i) inside &= uint64_t(at(i)) < uint64_t(limit);
  if (inside) return -1;
  for (py::ssize_t i = 0;; ++i) {
    if (uint64_t(at(i)) >= uint64_t(limit)) return i;
  }
}

py::dict build_facts() {
  py::dict facts;
  facts["torch"] = DP_BUILD_TORCH;
  facts["torch_target"] = DP_TORCH_TARGET;
  facts["cuda"] = DP_BUILD_CUDA;
  facts["cuda_architectures"] = DP_BUILD_ARCHITECTURES;
  facts["compiler"] = __VERSION__;
  return facts;
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Rank statistics and checks of NumPy arrays, and how this build was made.";
  m.def("rank_rows", &rank_rows, py::arg("x"), "Average ranks (1-based) within each row of x [rows, n].");
  m.def("standard_ranks", &standard_ranks, py::arg("x"),
        "Ranks of x [n] with mean 0 and variance 1, all 0 if all values are equal; and the mean of rank x value.");
  m.def("compare_halves", &compare_halves, py::arg("means"), py::arg("group").noconvert(), py::arg("groups"),
        "Of each two rows of means [2 x splits, n], over all examples and over those of each group, group [n] int32: "
        "Spearman correlation, and how alike they are spread, [splits, 1 + groups, 2]; NaN examples are left out.");
  m.def("spearman_matrix", &spearman_matrix, py::arg("x"), "Spearman correlation between the rows of x [rows, n].");
  m.def("count_as_large", &count_as_large, py::arg("scores"), py::arg("threshold"), py::arg("groups").noconvert(),
        "Of groups [assignments, runs] int16, how many have a sum of squares between groups of at least threshold [n], "
        "for each column of scores [runs, n] with mean 0.");
  m.def("first_outside", &first_outside, py::arg("values").noconvert(), py::arg("limit"),
        "Position of the first of values [n] int64 outside 0..limit-1, or -1.");
  m.def("build_facts", &build_facts, "What this build was made with.");
}
