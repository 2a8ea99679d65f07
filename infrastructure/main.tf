# The whole deployment of one environment. This file has providers, names and the network; every other one has what its
# name says.

provider "aws" {
  region = var.aws_region

  default_tags {
    tags = local.tags
  }
}

# Where copies of buckets are, if anywhere.
provider "aws" {
  alias  = "replica"
  region = coalesce(var.replica_region, var.aws_region)

  default_tags {
    tags = local.tags
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  name       = "${var.project}-${var.environment}"
  production = var.environment == "production"
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  colors     = toset(["blue", "green"])

  tags = merge(var.tags, {
    Project     = "FlowViz"
    Environment = var.environment
    ManagedBy   = "Terraform"
  })

  # What null means.
  azs                     = length(var.azs) > 0 ? var.azs : ["${var.aws_region}a", "${var.aws_region}b"]
  single_nat_gateway      = coalesce(var.single_nat_gateway, !local.production)
  deletion_protection     = coalesce(var.deletion_protection, local.production)
  nodes                   = var.nodes != null ? var.nodes : (local.production ? { min = 2, max = 4 } : { min = 1, max = 2 })
  database_instance_class = coalesce(var.database_instance_class, local.production ? "db.t3.medium" : "db.t3.micro")
  database_multi_az       = coalesce(var.database_multi_az, local.production)
  ami_parameter           = coalesce(var.ami_parameter, "/${var.project}/${var.environment}/ami")
  metrics_namespace       = coalesce(var.metrics_namespace, "FlowViz/${var.environment}")
}

# terraform-aws-modules/vpc 5.x takes the same variables, if you would rather have that.
module "network" {
  source = "./modules/network"

  name = local.name
  cidr = var.cidr
  azs  = local.azs

  public_subnets   = var.public_subnets
  private_subnets  = var.private_subnets
  database_subnets = var.database_subnets

  enable_nat_gateway = true
  single_nat_gateway = local.single_nat_gateway

  enable_dns_hostnames = true
  enable_dns_support   = true

  create_database_subnet_group = true

  enable_flow_log                   = var.flow_logs
  flow_log_destination_arn          = one(aws_cloudwatch_log_group.flow[*].arn)
  flow_log_cloudwatch_iam_role_arn  = one(aws_iam_role.flow_log[*].arn)
  flow_log_max_aggregation_interval = 600 # ten minutes: a minute's records cost several times as much
}

# Layers of images come from S3, and are most of what a node fetches: without this they pass the NAT gateway, by the GB.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = module.network.vpc_id
  service_name      = "com.amazonaws.${var.aws_region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = module.network.private_route_table_ids

  tags = { Name = "${local.name}-s3" }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = var.interface_endpoints

  vpc_id              = module.network.vpc_id
  service_name        = "com.amazonaws.${var.aws_region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = module.network.private_subnets
  security_group_ids  = [aws_security_group.endpoints[0].id]
  private_dns_enabled = true

  tags = { Name = "${local.name}-${each.key}" }
}
