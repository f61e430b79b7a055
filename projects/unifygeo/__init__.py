"""UnifyGeo: retrieval and metric localisation of ground panoramas in satellite tiles (arXiv 2505.07622).

``encoder``, ``aggregator``, ``decoder``, ``network``, ``losses``, ``targets``, ``reranking`` and ``superglobal`` are
plain torch; ``model`` registers the system with MMEngine; ``converter`` translates published checkpoints.
"""
