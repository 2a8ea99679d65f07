"""FlowViz WMS: a small warehouse system for food production.

Lots of raw material come in, become production lots, pass or fail quality control, and are shipped. Every lot can be
traced to the customers it reached and back to the raw materials it was made of.
"""
