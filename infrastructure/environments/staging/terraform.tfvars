# Staging: production in small. One NAT gateway, one node, one zone for the database, nothing protected.
environment = "staging"
aws_region  = "us-east-1"

domain_name = "staging.wms.flowviz.example"
zone_name   = "flowviz.example"

# The WMS calls its database that.
database_name = "wms"

release        = "2026.11.1"
alarm_releases = ["2026.11.1"]
