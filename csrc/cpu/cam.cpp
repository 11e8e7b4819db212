#include <vector>

#include "capability.h"
#include "parallel.h"
#include "sal_fast/launch/cam.h"

namespace sal_fast {

// The images [begin, end), on one thread. weight_terms: [images, channels], what each image adds to the row
// of its class, or null.
SAL_FAST_DECLARE(void cam_rows(const CamArgs& args, int64_t begin, int64_t end))
SAL_FAST_DECLARE(void cam_backward_rows(const CamBackwardArgs& args, float* weight_terms, int64_t begin,
                                        int64_t end))

void cam_cpu(const CamArgs& args, int threads) {
  const auto rows = SAL_FAST_DISPATCH(cam_rows);
  parallel_for(args.images, args.channels * args.pixels, threads,
               [&](int64_t begin, int64_t end) { rows(args, begin, end); });
}

void cam_backward_cpu(const CamBackwardArgs& args, int threads) {
  const auto rows = SAL_FAST_DISPATCH(cam_backward_rows);
  const bool terms = args.grad_weight && args.grad_cam;
  std::vector<float> weight_terms(terms ? args.images * args.channels : 0);
  parallel_for(args.images, args.channels * args.pixels, threads, [&](int64_t begin, int64_t end) {
    rows(args, terms ? weight_terms.data() : nullptr, begin, end);
  });
  // Images of one class add up in their order, whatever the threads.
  for (int64_t image = 0; terms && image < args.images; ++image) {
    if (args.target[image] < 0 || args.target[image] >= args.classes) continue;
    float* row = args.grad_weight + args.target[image] * args.channels;
    const float* term = weight_terms.data() + image * args.channels;
    for (int64_t channel = 0; channel < args.channels; ++channel) row[channel] += term[channel];
  }
}

}  // namespace sal_fast
