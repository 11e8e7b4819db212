#include <vector>

#include "capability.h"
#include "parallel.h"
#include "sal_fast/ssim.h"
#include "scratch.h"
#include "ssim_rows.h"

namespace sal_fast {

void ssim_cpu(const SsimArgs& args, int threads) {
  const auto band_sum = SAL_FAST_DISPATCH(ssim_band);
  const int64_t scratch_size = SAL_FAST_DISPATCH(ssim_scratch)(args);
  std::vector<float> taps(args.window);
  gaussian_taps(args.window, args.sigma, taps.data());

  const int64_t bands = ssim_bands(args);
  std::vector<double> sums(args.images * args.channels * bands);
  parallel_for(static_cast<int64_t>(sums.size()), args.height * args.width, threads,
               [&](int64_t begin, int64_t end) {
                 const Scratch scratch(scratch_size);
                 for (int64_t i = begin; i < end; ++i)
                   sums[i] = band_sum(args, taps.data(), i / bands, i % bands, scratch.data());
               });

  const double positions = static_cast<double>(args.channels) *
                           static_cast<double>(ssim_positions(args.height, args.window, args.border)) *
                           static_cast<double>(ssim_positions(args.width, args.window, args.border));
  const int64_t parts = args.channels * bands;
  for (int64_t image = 0; image < args.images; ++image) {
    double total = 0;
    for (int64_t part = 0; part < parts; ++part) total += sums[image * parts + part];
    args.values[image] = static_cast<float>(total / positions);
  }
}

}  // namespace sal_fast
