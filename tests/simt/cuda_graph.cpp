/* The runtime's calls for graphs: a recorded graph is the list of what streams were asked to do. */
#include <algorithm>
#include <cstdlib>

#include "tests/simt/stream.hpp"

struct CUgraph_st {
  std::vector<simt::Node> nodes;
};

struct CUgraphExec_st {
  std::shared_ptr<const std::vector<simt::Node>> nodes;
  simt::OpRef last_launch;
};

namespace simt {

namespace {

/* One launch of a graph: its nodes in an order drawn from the seed, each after those it depends on. */
class GraphRun {
public:
  explicit GraphRun(std::shared_ptr<const std::vector<Node>> nodes)
      : nodes_(std::move(nodes)), steps_(nodes_->size()), is_done_(nodes_->size(), false) {}

  Step step() {
    std::vector<size_t> ready;
    for (size_t i = 0; i < nodes_->size(); ++i) {
      if (!is_done_[i] && is_ready(i)) {
        ready.push_back(i);
      }
    }
    if (ready.empty()) {
      return Step::done;
    }
    for (size_t left = ready.size(); left > 0; --left) {
      std::swap(ready[left - 1], ready[stream_random().below(left)]);
      if (step_node(ready[left - 1]) != Step::stuck) {
        return Step::moved;
      }
    }
    return Step::stuck;
  }

private:
  bool is_ready(size_t i) const {
    const auto &after = (*nodes_)[i].after;
    return std::all_of(after.begin(), after.end(), [this](size_t n) { return is_done_[n]; });
  }

  Step step_node(size_t i) {
    if (!steps_[i]) {
      steps_[i] = (*nodes_)[i].work.begin();
    }
    const Step step = steps_[i]();
    is_done_[i] = step == Step::done;
    return step;
  }

  std::shared_ptr<const std::vector<Node>> nodes_;
  std::vector<std::function<Step()>> steps_;
  std::vector<bool> is_done_;
};

/* Nodes that come before `tail`, and those of it. */
std::vector<bool> reached_from(const std::vector<Node> &nodes, const std::vector<size_t> &tail) {
  std::vector<bool> is_reached(nodes.size(), false);
  std::vector<size_t> pending = tail;
  while (!pending.empty()) {
    const size_t i = pending.back();
    pending.pop_back();
    if (!is_reached[i]) {
      is_reached[i] = true;
      pending.insert(pending.end(), nodes[i].after.begin(), nodes[i].after.end());
    }
  }
  return is_reached;
}

} // namespace

} // namespace simt

using namespace simt;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
  SIMT_ENTER(enter(__func__));
  if (stream == nullptr || stream == cudaStreamLegacy) {
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  if (!is_alive(stream, __func__)) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  if (stream->capture != nullptr) {
    return remember(cudaErrorInvalidValue);
  }
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  stream->capture->mode = mode;
  stream->capture->streams = {stream};
  stream->tail.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus *status) {
  SIMT_ENTER(enter(__func__));
  cudaStream_t stream = stream_of(handle, __func__);
  if (stream == nullptr) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  *status = stream->capture == nullptr    ? cudaStreamCaptureStatusNone
            : stream->capture->is_invalid ? cudaStreamCaptureStatusInvalidated
                                          : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  SIMT_ENTER(enter(__func__));
  if (stream == nullptr || graph == nullptr || !is_alive(stream, __func__)) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  if (stream->capture == nullptr || stream->capture->origin != stream) {
    return remember(cudaErrorStreamCaptureUnmatched);
  }
  const std::shared_ptr<Capture> capture = stream->capture;
  const std::vector<bool> is_joined = reached_from(capture->nodes, stream->tail);
  for (cudaStream_t member : capture->streams) {
    member->capture = nullptr;
    member->tail.clear();
  }
  *graph = nullptr;
  if (capture->is_invalid) {
    return remember(cudaErrorStreamCaptureInvalidated);
  }
  if (!std::all_of(is_joined.begin(), is_joined.end(), [](bool joined) { return joined; })) {
    return remember(cudaErrorStreamCaptureUnjoined);
  }
  *graph = new CUgraph_st{std::move(capture->nodes)};
  note_alive(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags) {
  SIMT_ENTER(enter(__func__));
  if (exec == nullptr || flags != 0) {
    return remember(cudaErrorInvalidValue);
  }
  if (!is_alive(graph, __func__)) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  *exec = new CUgraphExec_st{std::make_shared<const std::vector<Node>>(graph->nodes), nullptr};
  note_alive(*exec);
  return cudaSuccess;
}

/* Launches of one graph follow each other, on whatever streams they are. */
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
  SIMT_ENTER(enter(__func__));
  cudaStream_t stream = stream_of(handle, __func__);
  if (stream == nullptr || !is_alive(exec, __func__)) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  if (stream->capture != nullptr) {
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  Work work;
  work.name = "a graph";
  for (const Node &node : *exec->nodes) {
    const Work &part = node.work;
    work.uses.insert(work.uses.end(), part.uses.begin(), part.uses.end());
    work.host_writes.insert(work.host_writes.end(), part.host_writes.begin(),
                            part.host_writes.end());
  }
  const OpRef before = exec->last_launch;
  work.begin = [nodes = exec->nodes, before] {
    auto run = std::make_shared<GraphRun>(nodes);
    return
        [run, before] { return before != nullptr && !before->is_done ? Step::stuck : run->step(); };
  };
  const cudaError_t error = submit(stream, std::move(work));
  exec->last_launch = error == cudaSuccess ? stream->last : before;
  return remember(error);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  SIMT_ENTER(enter(__func__));
  if (!is_alive(graph, __func__)) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  note_destroyed(graph);
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  SIMT_ENTER(enter(__func__));
  if (!is_alive(exec, __func__)) {
    return remember(cudaErrorInvalidResourceHandle);
  }
  note_destroyed(exec);
  delete exec;
  return cudaSuccess;
}
