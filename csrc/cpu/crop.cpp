#include "sal_fast/launch/crop.h"
#include "capability.h"
#include "parallel.h"
#include "scratch.h"

namespace sal_fast {

// The crops [begin, end), on one thread, and the floats of memory that it needs.
SAL_FAST_DECLARE(int64_t crop_images_memory(const CropImagesArgs& args))
SAL_FAST_DECLARE(void crop_images_rows(const CropImagesArgs& args, int64_t begin, int64_t end, float* memory))
SAL_FAST_DECLARE(int64_t crop_masks_memory(const CropMasksArgs& args))
SAL_FAST_DECLARE(void crop_masks_rows(const CropMasksArgs& args, int64_t begin, int64_t end, float* memory))

void crop_images_cpu(const CropImagesArgs& args, int threads) {
  const auto run = SAL_FAST_DISPATCH(crop_images_rows);
  const int64_t memory = SAL_FAST_DISPATCH(crop_images_memory)(args);
  parallel_for(args.batch, 3 * args.out_height * args.out_width, threads, [&](int64_t begin, int64_t end) {
    const Scratch scratch(memory);
    run(args, begin, end, scratch.data());
  });
}

void crop_masks_cpu(const CropMasksArgs& args, int threads) {
  const auto run = SAL_FAST_DISPATCH(crop_masks_rows);
  const int64_t memory = SAL_FAST_DISPATCH(crop_masks_memory)(args);
  parallel_for(args.batch, args.out_height * args.out_width, threads, [&](int64_t begin, int64_t end) {
    const Scratch scratch(memory);
    run(args, begin, end, scratch.data());
  });
}

}  // namespace sal_fast
