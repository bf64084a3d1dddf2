"""One endpoint before many nodes: cuts requests into pieces, sends each to a node, retries, and merges the answers.

Owns which nodes there are and how each is; computes nothing. A request passes `service`, `cut`, `send`, `fleet`,
`choice`, `node`, `node_api`, and then `merge`. `contract.front` has the settings and the control API.
"""
