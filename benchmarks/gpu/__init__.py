"""What a GPU gives: from file to verdict, beside what others would use, and stage two alone.

    python -m benchmarks.gpu [--json] [--minutes 12] [--only PART ...] [--weights FILE]
                             [--train 200] [--k 50] [--batch 1 8 32] [--repeats 7] [--rehearse]

Wide-ResNet-50-2 and images of 256 pixels, of which the network sees 224: views of a photographed
texture. Without `--weights` the network has random weights (a fixed seed, and batch normalisation
fitted to the images), which the output says.

Parts, in the order of their worth; each runs in a process of its own and has its own limit of
time, so that one that fails or hangs costs only itself:

- device: the GPU, and how fast it multiplies large matrices (the floor);
- files: images a second from PNG files to results, and to written maps, by batches of 8, 32 and
  64; the seconds of each stage; and the floors, decoding by 1 to 16 threads and the network alone;
- single: milliseconds from one decoded array to its map, and to its verdict and regions, by
  `Spade.query` and `Spade.predict`, what the GPU did meanwhile, and how far the results are from
  those of a batch and of the CPU; and from a PNG file's bytes to the service's answer;
- build: `Spade.fit` of 1,000 files, thresholds by leave-one-out included: seconds by stage, memory;
- others: spade-faiss, PatchCore as anomalib does it, and PatchCore as patchcore-inspection does it
  with FAISS, each in a process of its own, on the same arrays: images a second, one image alone,
  memory, seconds to learn. Where these packages are installed they are used; else their steps are
  done here (see `patchcore`). "by" says which;
- pipeline: images a second from PNG files to maps, one stage after the other, and each stage's
  time;
- level 1 to 3: stage two at each level of the pyramid (56x56x256, 28x28x512 and 14x14x1024), all
  ways in turn in each repeat:
    - fused: spade_faiss.search.cuda, the gallery prepared; at each batch size;
    - cdist, bmm: float32 torch.cdist, and the expanded product, over tiles of the gallery;
    - pairwise: torch.pairwise_distance over chunks of 100 gallery rows, as SPADE-pytorch does
      (a part of the chunks is measured and scaled up);
    - faiss: a GpuIndexFlatL2 built for each image and then searched, as SPADE-fast does, and
      faiss.knn_gpu; where faiss has no GPU, this is said;
  with the fused search's exactness (all queries of one image against float64), the pairs a query
  that it rescores, the GPU time of each of its kernels, and the tiles that it chose;
- spade: images a second by `Spade.query` of PNG files, without thresholds.

The whole ends within `--minutes`: what was not reached by then is said. `--rehearse` runs all of it
small, on the CPU, with a small network and Triton's kernels
interpreted; its times mean nothing.

Times of levels are of CUDA events; all others are the host's, with the GPU waited for.
"""
