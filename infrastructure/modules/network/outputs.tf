# The names are those of terraform-aws-modules/vpc, as with the variables.

output "vpc_id" {
  description = "Id of the VPC."
  value       = aws_vpc.this.id
}

output "vpc_cidr_block" {
  description = "The VPC's IPv4 range."
  value       = aws_vpc.this.cidr_block
}

output "public_subnets" {
  description = "Ids of the public subnets, in the order of azs."
  value       = [for az in var.azs : aws_subnet.public[az].id]
}

output "private_subnets" {
  description = "Ids of the nodes' subnets, in the order of azs."
  value       = [for az in var.azs : aws_subnet.private[az].id]
}

output "database_subnets" {
  description = "Ids of the database subnets, in the order of azs."
  value       = [for az in var.azs : aws_subnet.database[az].id]
}

output "database_subnet_group_name" {
  description = "Name of the RDS subnet group; null without one."
  value       = one(aws_db_subnet_group.database[*].name)
}

output "private_route_table_ids" {
  description = "Ids of the private subnets' route tables, in the order of azs."
  value       = [for az in var.azs : aws_route_table.private[az].id]
}

output "database_route_table_ids" {
  description = "Id of the database subnets' route table, as a list."
  value       = [aws_route_table.database.id]
}

output "nat_public_ips" {
  description = "Public addresses of the NAT gateways, by which the outside sees the nodes."
  value       = [for az in local.nat_zones : aws_eip.nat[az].public_ip]
}
