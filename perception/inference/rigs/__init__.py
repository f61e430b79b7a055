"""Folders of camera rigs in which objects are found: nuScenes' data sets, and plain folders."""
